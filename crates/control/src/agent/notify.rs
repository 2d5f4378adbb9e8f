//! What systemd is told: that we are ready, alive, and stopping. A datagram to `NOTIFY_SOCKET`, as `sd_notify(3)` describes.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where to say it; nowhere when nobody listens.
#[derive(Debug, Default)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// `socket` is the value of `NOTIFY_SOCKET`: a path, or a name that begins with `@`.
    pub fn new(socket: Option<OsString>) -> Self {
        let open = |socket: OsString| {
            let address = match socket.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
            };
            let own = UnixDatagram::unbound().ok()?;
            // Whoever does not read must not hold the agent up.
            own.set_nonblocking(true).ok()?;
            Some((own, address.ok()?))
        };
        Self(socket.and_then(open))
    }

    /// Says it. That nobody hears it changes nothing for us.
    pub fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            socket.send_to_addr(text.as_bytes(), address).ok();
        }
    }
}

/// How often to say that we are alive, from the value of `WATCHDOG_USEC`: four times as often as needed.
pub fn watchdog(microseconds: Option<&OsStr>) -> Option<Duration> {
    let microseconds: u64 = microseconds?.to_str()?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let name = format!("retoma-notify-{}", std::process::id());
        let named = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(listener, path.into_os_string()), (named, format!("@{name}").into())] {
            let notify = Notify::new(Some(address));
            notify.say("READY=1");
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
            drop(socket);
            notify.say("WATCHDOG=1");
        }
        let deaf = folder.path().join("deaf");
        let _unread = UnixDatagram::bind(&deaf).unwrap();
        let notify = Notify::new(Some(deaf.into_os_string()));
        (0..10_000).for_each(|_| notify.say("WATCHDOG=1"));
        Notify::new(None).say("READY=1");
        Notify::new(Some("/nowhere/at/all".into())).say("READY=1");
    }

    #[test]
    fn a_watchdog_is_fed_in_time() {
        assert_eq!(watchdog(Some(OsStr::new("60000000"))), Some(Duration::from_secs(15)));
        for none in [None, Some(OsStr::new("0")), Some(OsStr::new("x"))] {
            assert_eq!(watchdog(none), None);
        }
    }
}
