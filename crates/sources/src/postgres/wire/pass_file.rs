//! The password file of PostgreSQL's own programs: `host:port:database:user:password` in each line.

use retoma_core::Secret;

/// What a login looks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The host's name, or the folder of the socket.
    pub(super) host: &'a str,
    /// Whether `localhost` means it, too: the default socket.
    pub(super) is_default_socket: bool,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line that fits.
pub(super) fn look_up(text: &str, wanted: Wanted<'_>) -> Option<Secret<String>> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [host, port, database, user, password] = fields(line)?;
        let is_host = fits(&host, wanted.host) || wanted.is_default_socket && host == "localhost";
        let is_it = is_host
            && fits(&port, &wanted.port.to_string())
            && fits(&database, wanted.database)
            && fits(&user, wanted.user);
        (is_it && !password.is_empty()).then(|| Secret::new(password))
    })
}

fn fits(pattern: &str, value: &str) -> bool {
    pattern == "*" || pattern == value
}

/// The five fields of a line; a backslash takes the next character as it is.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields = vec![String::new()];
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            // What stands behind the password is no part of it.
            ':' => break,
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        fields.last_mut()?.push(character);
    }
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# passwords\nshort:line\ndb.example.org:5433:app:retoma:one\n\
                        *:*:replication:retoma:two\r\n*:5432:*:with\\:colon:th\\\\r\\:ee:comment\nlocalhost:*:*:me:four";

    fn found(host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        let is_default_socket = host == "/var/run/postgresql";
        look_up(FILE, Wanted { host, is_default_socket, port, database, user })
            .map(|secret| secret.expose().clone())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        assert_eq!(found("db.example.org", 5433, "app", "retoma").as_deref(), Some("one"));
        assert_eq!(found("anything", 1, "replication", "retoma").as_deref(), Some("two"));
        assert_eq!(found("x", 5432, "y", "with:colon").as_deref(), Some("th\\r:ee"));
        assert_eq!(found("localhost", 5432, "x", "me").as_deref(), Some("four"));
        assert_eq!(found("/var/run/postgresql", 5432, "x", "me").as_deref(), Some("four"));
        assert_eq!(found("/elsewhere", 5432, "x", "me"), None);
        assert_eq!(found("db.example.org", 5432, "app", "retoma"), None);
    }
}
