//! A free port for a scratch service.

use retoma_core::manifest::Manifest;
use retoma_core::{Error, Result};

/// A port of this machine that nobody listens on now.
///
/// # Errors
/// The system has none.
pub fn free() -> Result<u16> {
    let listener =
        std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|error| Error::io("a free port", error))?;
    Ok(listener.local_addr().map_err(|error| Error::io("a free port", error))?.port())
}

/// The port of an address on this machine.
fn port_of(url: &str) -> Option<u16> {
    let url = url::Url::parse(url).ok()?;
    matches!(url.host_str()?, "127.0.0.1" | "localhost" | "[::1]").then(|| url.port()).flatten()
}

/// Moves the service that `manifest` describes to `port`: in `start`, where an argument is the port of `health` or ends
/// with it after `:` or `=`, and in every address on this machine with that port. Whether there was such an argument;
/// without one nothing is changed.
pub fn move_service(manifest: &mut Manifest, port: u16) -> bool {
    let Some(old) = manifest.service.health.as_deref().and_then(port_of) else { return false };
    let Some(start) = &mut manifest.service.start else { return false };
    let digits = old.to_string();
    let is_it = |argument: &str| {
        let head = argument.strip_suffix(&digits);
        head.is_some_and(|head| head.is_empty() || head.ends_with([':', '=']))
    };
    if !start.arguments.iter().any(|argument| is_it(argument)) {
        return false;
    }
    for argument in start.arguments.iter_mut().filter(|argument| is_it(argument)) {
        argument.truncate(argument.len() - digits.len());
        argument.push_str(&port.to_string());
    }
    let checks = manifest.service.checks.iter_mut().map(|check| &mut check.url);
    let markers = manifest.drill.markers.iter_mut().flat_map(|it| [&mut it.write_url, &mut it.read_url]);
    for url in manifest.service.health.iter_mut().chain(checks).chain(markers) {
        if port_of(url) != Some(old) {
            continue;
        }
        if let Ok(mut moved) = url::Url::parse(url)
            && moved.set_port(Some(port)).is_ok()
        {
            *url = moved.to_string();
        }
    }
    true
}

/// Moves the service to where it listens according to `moved`, the same manifest after [`move_service`].
pub(super) fn move_to(manifest: &mut Manifest, moved: &Manifest) {
    if let Some(port) = moved.service.health.as_deref().and_then(port_of) {
        move_service(manifest, port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};

    /// A service at `health` that is started with `arguments`, asked at `check`, and marked at `marker`.
    fn manifest(health: &str, arguments: &[&str], check: &str, marker: &str) -> Manifest {
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\nhealth = \"{health}\"\nstart = [\"run\", {}]\n\
             [[service.check]]\nurl = \"{check}\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
             password = \"env:P\"\n[[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"m\"\n\
             [drill]\nmarker_url = \"{marker}\"\n",
            arguments.iter().map(|argument| format!("\"{argument}\"")).collect::<Vec<_>>().join(", ")
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/srv".into() };
        parse(&text, &origin).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn the_port_is_an_argument_or_the_end_of_one_and_other_numbers_stay() {
        let words = ["8080", "--port=8080", "127.0.0.1:8080", "18080", "80800", "x8080", "--n=8080x"];
        for health in ["http://127.0.0.1:8080/", "http://localhost:8080/", "http://[::1]:8080/"] {
            let mut moved = manifest(health, &words, health, health);
            assert!(move_service(&mut moved, 9), "{health}");
            let start = moved.service.start.unwrap();
            let expected = ["9", "--port=9", "127.0.0.1:9", "18080", "80800", "x8080", "--n=8080x"];
            assert_eq!(
                (start.program.as_str(), start.arguments.as_slice()),
                ("run", &expected.map(str::to_owned)[..])
            );
            assert_eq!(moved.service.health.unwrap(), health.replace("8080", "9"));
        }
    }

    #[test]
    fn addresses_of_other_ports_and_machines_stay() {
        let health = "http://127.0.0.1:8080/h";
        for other in ["http://127.0.0.1:8081/x", "http://10.0.0.1:8080/x", "http://example.org/x"] {
            let mut moved = manifest(health, &["8080"], other, "http://localhost:8080/marker");
            assert!(move_service(&mut moved, 9));
            assert_eq!(moved.service.checks[0].url, other);
            let markers = moved.drill.markers.unwrap();
            assert_eq!(markers.write_url, "http://localhost:9/marker");
            assert!(markers.read_url.starts_with("http://localhost:9/"), "{}", markers.read_url);
        }
    }

    #[test]
    fn a_service_whose_port_is_not_known_stays_where_it_is() {
        let cases: [(&str, &[&str]); 4] = [
            ("http://127.0.0.1:8080/", &["--root", "."]),
            ("http://127.0.0.1:8080/", &["18080", "x8080"]),
            ("http://10.0.0.1:8080/", &["8080"]),
            // The port that a scheme implies is in no argument.
            ("http://127.0.0.1/", &["80"]),
        ];
        for (health, arguments) in cases {
            let before = manifest(health, arguments, health, health);
            let mut moved = before.clone();
            assert!(!move_service(&mut moved, 9), "{health} {arguments:?}");
            assert_eq!(moved, before);
        }
    }

    #[test]
    fn a_free_port_can_be_listened_on() {
        std::net::TcpListener::bind(("127.0.0.1", free().unwrap())).unwrap();
    }
}
