//! Configuration files: `KEY="value"` lines that a shell could read too.
//!
//! Rules: the first occurrence of a key counts, later ones are reported; unknown keys are kept and ignored; a line
//! that is no assignment is an error with its number. Nothing is expanded here: `$VEID` is [`crate::paths`]'s.
//!
//! # Source
//! vz.conf(5), ctid.conf(5), vzctl `src/lib/config.c`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest configuration file that is read.
const FILE_MAX: u64 = 1024 * 1024;

/// The assignments of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
    lines: BTreeMap<String, usize>,
    repeated: Vec<(usize, String)>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is longer than any configuration file.
    #[error("{}: longer than {FILE_MAX} bytes: not a configuration file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// One line makes no sense.
    #[error("{}: line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to write.
        problem: &'static str,
    },
}

impl Config {
    /// Reads a file; one that does not exist is empty.
    ///
    /// # Errors
    /// Unreadable, too long, not UTF-8, or a line that is no assignment.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable {
            path: path.into(),
            error,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = String::new();
        file.take(FILE_MAX + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if u64::try_from(text.len()).is_ok_and(|length| length > FILE_MAX) {
            return Err(ConfigError::TooLong { path: path.into() });
        }
        Self::parse(&text).map_err(|(line, problem)| ConfigError::Line {
            path: path.into(),
            line,
            problem,
        })
    }

    /// Reads the text of a file; errors are the line's number and what is wrong with it.
    ///
    /// # Errors
    /// A line that is neither empty, a comment nor an assignment.
    pub fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut config = Self::default();
        for (index, line) in text.lines().enumerate() {
            let number = index.saturating_add(1);
            let Some((key, value)) = assignment(line).map_err(|problem| (number, problem))? else {
                continue;
            };
            if config.values.contains_key(key) {
                config.repeated.push((number, key.to_owned()));
            } else {
                config.values.insert(key.to_owned(), value.to_owned());
                config.lines.insert(key.to_owned(), number);
            }
        }
        Ok(config)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The line where a key is assigned, counted from 1.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// Lines that were ignored because their key was assigned before, with that key.
    pub fn repeated(&self) -> &[(usize, String)] {
        &self.repeated
    }

    /// Every key and value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The key and value of a line; `None` for an empty line or comment.
fn assignment(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or("no '=': write KEY=\"value\"")?;
    let mut letters = key.chars();
    let starts_well = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err("not the name of a key before '=': write KEY=\"value\"");
    }
    Ok(Some((key, unquoted(value)?)))
}

/// The value without its quotes, or up to the first space, after which only a comment may stand.
fn unquoted(value: &str) -> Result<&str, &'static str> {
    let (value, rest) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inside = value.get(1..).unwrap_or("");
            inside
                .split_once(quote)
                .ok_or("a quote that does not end: close it on the same line")?
        }
        _ => value.split_once(char::is_whitespace).unwrap_or((value, "")),
    };
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("text after the value: put quotes around a value with spaces");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_a_shell_reads_them() {
        let text = "# comment\n\nA=\"x y\"\nB=z  # why\n C='$VEID'\nD=\nA=again\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.get("A"), Some("x y"));
        assert_eq!(config.get("B"), Some("z"));
        assert_eq!(config.get("C"), Some("$VEID"));
        assert_eq!(config.get("D"), Some(""));
        assert_eq!(config.repeated(), &[(7, "A".to_owned())]);
    }

    #[test]
    fn errors_have_line_numbers() {
        for (text, line) in [
            ("A=1\nnonsense\n", 2),
            ("=1", 1),
            ("A B=1", 1),
            ("\n\nA=\"open", 3),
            ("A=1 2", 1),
            ("1A=2", 1),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_empty_and_a_binary_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Config::read(&dir.path().join("none")).unwrap(),
            Config::default()
        );
        let binary = dir.path().join("binary");
        std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(
            Config::read(&binary),
            Err(ConfigError::Unreadable { .. })
        ));
    }
}
