//! Standard output, which is for data alone.

use std::io::{self, ErrorKind, Stdout, Write};

/// Standard output that takes a reader who went away for granted: `zerostate schema | head` is no failure.
#[derive(Debug)]
pub(super) struct Output<W = Stdout> {
    to: W,
    gone: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { to: io::stdout(), gone: false }
    }
}

impl<W: Write> Output<W> {
    /// One JSON document, indented for people, and a line end.
    pub(super) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        writeln!(self, "{text}")?;
        self.flush()
    }

    /// One JSON document in one line.
    pub(super) fn json_line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        writeln!(self, "{text}")?;
        self.flush()
    }

    /// Whether the reader has gone away.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    fn unless_gone(&mut self, done: io::Result<()>) -> io::Result<()> {
        match done {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            done => done,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.gone {
            let done = self.to.write_all(bytes);
            self.unless_gone(done)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let done = self.to.flush();
        self.unless_gone(done)
    }
}

/// Says something to the person at the terminal, on standard error. That nobody listens there is no failure.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_who_went_away_is_no_failure() {
        let mut output = Output { to: Broken(ErrorKind::BrokenPipe), gone: false };
        assert!(output.json(&1).is_ok());
        assert!(output.gone);
        assert!(writeln!(output, "more").is_ok());
    }

    #[test]
    fn a_full_disk_is_one() {
        let mut output = Output { to: Broken(ErrorKind::StorageFull), gone: false };
        assert!(output.json(&1).is_err());
    }
}
