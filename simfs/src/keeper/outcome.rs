//! How attempts to replace the program went, as the shared memory tells the daemon.

/// The last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts up from 1.
    pub number: u32,
    /// What came of it.
    pub fate: Fate,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The new program was started and has not proven itself yet.
    Starting,
    /// It serves.
    Running,
    /// It does not, for this reason; the old one does.
    Reverted(String),
}

/// Longest reason that is kept, in bytes.
const REASON_MAX: usize = 400;

impl Attempt {
    /// As bytes: number (4), kind (1), reason.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, reason) = match &self.fate {
            Fate::Starting => (b'S', ""),
            Fate::Running => (b'R', ""),
            Fate::Reverted(reason) => (b'X', reason.as_str()),
        };
        let reason = reason.bytes().take(REASON_MAX);
        let number = self.number.to_ne_bytes();
        number.into_iter().chain([kind]).chain(reason).collect()
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (kind, reason) = rest.split_first()?;
        let fate = match kind {
            b'S' => Fate::Starting,
            b'R' => Fate::Running,
            b'X' => Fate::Reverted(String::from_utf8_lossy(reason).into_owned()),
            _ => return None,
        };
        Some(Self {
            number: u32::from_ne_bytes(*number),
            fate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_reads_as_it_was_written() {
        for fate in [
            Fate::Starting,
            Fate::Running,
            Fate::Reverted("signal 11".into()),
        ] {
            let attempt = Attempt { number: 7, fate };
            assert_eq!(Attempt::decode(&attempt.encode()), Some(attempt));
        }
        assert_eq!(Attempt::decode(b"1234?"), None);
        assert_eq!(Attempt::decode(b"12"), None);
        let long = Fate::Reverted("é".repeat(1000));
        let attempt = Attempt {
            number: 1,
            fate: long,
        };
        assert!(attempt.encode().len() <= 512 && Attempt::decode(&attempt.encode()).is_some());
    }
}
