//! A panic is a bug of ours: it says so, with what a report needs, and ends with exit code 2.

/// Replaces the standard message.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        eprintln!(
            "error[R0001]: this is a bug in Retoma {}: {message} ({place})\nhint: please report it with the command \
             that you ran; nothing that was committed is lost",
            env!("CARGO_PKG_VERSION")
        );
    }));
}
