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
