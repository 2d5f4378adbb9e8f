//! What this host, user and clock are called: what snapshots, keys and locks record.

use crate::format::time::Time;

/// The clock's time.
pub fn now() -> Time {
    Time(jiff::Timestamp::now())
}

/// The host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user's number and group.
pub fn ids() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// The user's name, or number where it has none.
pub fn username() -> String {
    let (uid, _) = ids();
    let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| name_of(&text, uid));
    name.unwrap_or_else(|| uid.to_string())
}

/// The name of `id` in a file of the form `name:password:id:…` (`/etc/passwd`, `/etc/group`).
pub fn name_of(text: &str, id: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// This process.
pub fn pid() -> u32 {
    std::process::id()
}

/// Whether a process of this host runs; unknown counts as running.
pub fn process_runs(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return true };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_number() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nana:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(text, 1000).as_deref(), Some("ana"));
        assert_eq!(name_of(text, 7), None);
    }

    #[test]
    fn this_process_runs() {
        assert!(process_runs(pid()));
        assert!(!hostname().is_empty());
    }
}
