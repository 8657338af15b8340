//! Stories through the running service, one file a noun. Each starts a [`world::World`] of its own and ends with
//! [`world::World::check`].

#[cfg(test)]
mod world;

#[cfg(test)]
mod subscription;
#[cfg(test)]
mod transport;
