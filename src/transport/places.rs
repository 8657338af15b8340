//! How much of something one caller holds at a time: requests that run, sockets and streams that are open.
//!
//! What is counted is held as a [`Place`] and given back when that is dropped, however its work ended. Who holds nothing is not
//! remembered, so the memory of this is bounded by what is held.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use entity::id::UserId;

use super::Origin;
use crate::caller::Caller;

/// Who holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A user, by whatever sessions and keys.
    User(UserId),
    /// An address; of IPv6 the network of 64 bits, because whoever has one address of it has them all.
    Network(IpAddr),
}

impl Holder {
    /// The caller as a holder: the user, or where nobody in particular calls from.
    pub(super) fn of(caller: &Caller, origin: Origin) -> Option<Self> {
        caller.user_id().map(Self::User).or_else(|| Self::at(origin))
    }

    /// Where a call comes from, if that is known.
    pub(super) fn at(Origin(address): Origin) -> Option<Self> {
        address.map(|address| match address.to_canonical() {
            IpAddr::V6(it) => Self::Network(Ipv6Addr::from_bits(it.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => Self::Network(v4),
        })
    }
}

/// The places that are taken. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<Holder, usize>>>);

impl Places {
    /// Takes a place unless the holder has `limit` of them already. Nobody known holds without a limit.
    pub(super) fn take(&self, holder: Option<Holder>, limit: usize) -> Option<Place> {
        if let Some(holder) = holder {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = held.get(&holder).copied().unwrap_or(0);
            if count >= limit {
                return None;
            }
            held.insert(holder, count + 1);
        }
        Some(Place { places: self.clone(), holder })
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    holder: Option<Holder>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(holder) = self.holder else { return };
        let mut held = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&holder) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&holder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<Holder> {
        Holder::at(Origin(Some(address.parse().unwrap())))
    }

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let places = Places::default();
        let (one, two) = (places.take(at("10.0.0.1"), 2), places.take(at("10.0.0.1"), 2));
        assert!(one.is_some() && two.is_some());
        assert!(places.take(at("10.0.0.1"), 2).is_none());
        assert!(places.take(at("10.0.0.2"), 2).is_some());
        drop(one);
        assert!(places.take(at("10.0.0.1"), 2).is_some());
        drop(two);
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_unknown_holder_has_no_limit() {
        let places = Places::default();
        assert!(places.take(None, 0).is_some());
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_address_counts_with_its_network() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
    }
}
