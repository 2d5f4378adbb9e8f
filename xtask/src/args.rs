//! A very small reader of command lines: flags, options with a value, and what follows `--`.
//!
//! By hand, since `xtask` is the first thing that every CI run compiles.

use crate::sh::Result;

/// The arguments after the task's name. What was not asked for by the end is an error ([`Args::finish`]).
#[derive(Debug)]
pub(crate) struct Args {
    own: Vec<String>,
    rest: Vec<String>,
}

impl Args {
    /// Splits at the first `--`.
    pub(crate) fn new(args: impl IntoIterator<Item = String>) -> Self {
        let mut own: Vec<String> = args.into_iter().collect();
        let rest = match own.iter().position(|arg| arg == "--") {
            Some(at) => own.drain(at..).skip(1).collect(),
            None => Vec::new(),
        };
        Self { own, rest }
    }

    /// Takes the next word that is no option.
    pub(crate) fn word(&mut self) -> Option<String> {
        if self.own.first()?.starts_with('-') { None } else { Some(self.own.remove(0)) }
    }

    /// Whether `name` (with its dashes) was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.own.len();
        self.own.retain(|arg| arg != name);
        self.own.len() < before
    }

    /// The value of `name VALUE` or `name=VALUE`.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>> {
        let equals = format!("{name}=");
        let Some(at) = self.own.iter().position(|arg| arg == name || arg.starts_with(&equals)) else {
            return Ok(None);
        };
        let arg = self.own.remove(at);
        if let Some(value) = arg.strip_prefix(&equals) {
            return Ok(Some(value.to_owned()));
        }
        if at < self.own.len() {
            Ok(Some(self.own.remove(at)))
        } else {
            Err(format!("`{name}` needs a value"))
        }
    }

    /// What follows `--`, for the program that we call.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.rest)
    }

    /// Refuses what no one asked for.
    pub(crate) fn finish(self) -> Result {
        match self.own.first().or(self.rest.first()) {
            None => Ok(()),
            Some(arg) => Err(format!("`{arg}` is not understood here; `cargo xtask help` lists the options")),
        }
    }
}

/// A number of bytes with an optional unit `K`, `M` or `G` (powers of 1024).
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size such as `300M` or `3G`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Args {
        Args::new(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_values_and_the_rest_are_told_apart() {
        let mut args = args("files --quick --size 3G --tools=restic,borg -- -E test(x) --quick");
        assert_eq!(args.word().as_deref(), Some("files"));
        assert!(args.flag("--quick"));
        assert_eq!(args.value("--size"), Ok(Some("3G".into())));
        assert_eq!(args.value("--tools"), Ok(Some("restic,borg".into())));
        assert_eq!(args.value("--rounds"), Ok(None));
        assert_eq!(args.rest(), ["-E", "test(x)", "--quick"]);
        assert_eq!(args.finish(), Ok(()));
    }

    #[test]
    fn what_nobody_asked_for_is_refused() {
        assert!(args("--chekc").finish().unwrap_err().contains("--chekc"));
        assert!(args("-- extra").finish().is_err());
        assert!(args("--size").value("--size").unwrap_err().contains("needs a value"));
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(bytes("12"), Ok(12));
        assert_eq!(bytes("3G"), Ok(3 << 30));
        for bad in ["", "G", "-1", "3T", "1.5G", "99999999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
