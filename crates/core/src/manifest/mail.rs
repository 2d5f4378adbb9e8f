//! Where alerts go as e-mail: `[alerts.email]`, and the shape of what it names.
//!
//! An address here is `name@domain` and nothing else, so that none can bring a header of its own along.

use super::secret_ref::SecretRef;
use core::net::IpAddr;
use std::path::PathBuf;

/// The names of [`MailSecurity`]'s values, in their order.
pub(super) const SECURITIES: [&str; 3] = ["starttls", "tls", "none"];
/// The longest address that SMTP carries (RFC 5321, 4.5.3.1.3).
const ADDRESS_BYTES: usize = 254;
/// The longest name before the `@` (4.5.3.1.1).
const LOCAL_BYTES: usize = 64;

/// What `[alerts.email]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// The server that takes the mail: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub security: MailSecurity,
    /// Certificates (PEM) that are trusted besides those that are built in.
    pub ca_file: Option<PathBuf>,
    /// Who is named as the sender.
    pub from: String,
    /// Who gets it; at least one.
    pub to: Vec<String>,
    /// Who logs in, and the password.
    pub login: Option<(String, SecretRef)>,
}

/// How a connection with a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MailSecurity {
    /// TLS is asked for, and without it nothing is said.
    #[default]
    StartTls,
    /// TLS from the first byte on.
    Tls,
    /// Not at all: on this machine only.
    None,
}

impl MailSecurity {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        SECURITIES[self as usize]
    }

    /// The value of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::StartTls, Self::Tls, Self::None].into_iter().find(|it| it.as_str() == name)
    }
}

/// Takes `host:port` apart; an IPv6 address stands in brackets, and is given without them.
pub(super) fn server(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<core::net::Ipv6Addr>().is_ok().then_some((inner, port));
    }
    is_host(host).then_some((host, port))
}

/// Whether a host is this machine by its very name.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether this is `name@domain`, in the letters that every server takes without extensions.
pub(super) fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_atom = |atom: &str| {
        let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        !atom.is_empty() && atom.bytes().all(may_be)
    };
    text.len() <= ADDRESS_BYTES
        && local.len() <= LOCAL_BYTES
        && local.split('.').all(is_atom)
        && is_host(domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn servers_are_a_host_and_a_port() {
        for (text, expected) in [
            ("smtp.example.org:587", Some(("smtp.example.org", 587))),
            ("127.0.0.1:25", Some(("127.0.0.1", 25))),
            ("[::1]:25", Some(("::1", 25))),
            ("smtp.example.org", None),
            ("smtp.example.org:0", None),
            ("smtp.example.org:65536", None),
            (":25", None),
            ("a b:25", None),
            ("a..b:25", None),
            ("-a:25", None),
            ("::1:25", None),
            ("[x]:25", None),
            ("smtp://host:25", None),
            ("host\r\n:25", None),
        ] {
            assert_eq!(server(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, is_it) in [
            ("localhost", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), is_it, "{host}");
        }
    }

    #[test]
    fn addresses_are_plain() {
        for good in ["a@b", "on-call+db@example.org", "o'neil@mail.example.org", "x@localhost"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            ".a@b",
            "a..b@c",
            "a@b..c",
            "Ops <a@b>",
            "a@b, c@d",
            "a@b\r\nBcc: x@y",
            "a@b\n",
            "\"a\"@b",
            "a@[127.0.0.1]",
            "ä@b",
            "a@b;c",
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
        assert!(!is_address(&format!("{}@b", "a".repeat(65))));
        assert!(!is_address(&format!("a@{}", "b.".repeat(130) + "c")));
    }

    proptest! {
        #[test]
        fn no_address_and_no_host_has_what_ends_a_line(text in any::<String>()) {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            prop_assert!(!is_address(&text) || is_plain);
            prop_assert!(server(&text).is_none() || is_plain);
        }
    }
}
