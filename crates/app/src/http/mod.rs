//! The agent's pages over HTTP: `/healthz` and `/metrics`, for who is on this machine or has the token.
//!
//! One thread with a runtime of its own; whatever hangs here hangs here alone. Nothing is changed over HTTP. A port that is taken is
//! waited for: backups matter more than numbers.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use retoma_control::agent::{Board, Tell};
use retoma_control::{Interrupt, durable};
use retoma_core::error::codes;
use retoma_core::{Error, Result, Secret};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// From one attempt to listen to the next.
const AGAIN: Duration = Duration::from_secs(10);
/// How often the flag is looked at that ends the server.
const LOOK: Duration = Duration::from_millis(250);
/// How long a stop waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);
/// More requests at once are refused.
const AT_ONCE: usize = 16;
/// The media type of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where to listen, and for whom.
#[derive(Debug)]
pub(crate) struct Listen {
    /// The address.
    pub(crate) address: SocketAddr,
    /// What requests must carry.
    pub(crate) token: Option<Secret<String>>,
    /// Gets the address in use and a line end.
    pub(crate) file: PathBuf,
}

struct Pages {
    board: Arc<Board>,
    token: Option<Secret<String>>,
    places: Semaphore,
}

/// Serves from now on until `interrupt`, in a thread of its own.
pub(crate) fn start(
    listen: Listen,
    board: Arc<Board>,
    interrupt: Interrupt,
    tell: Tell,
) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("asynchronous runtime", error))?;
    let pages = Arc::new(Pages { board, token: listen.token, places: Semaphore::new(AT_ONCE) });
    let (address, file) = (listen.address, listen.file);
    let work = move || {
        runtime.block_on(serve(address, file, pages, interrupt, tell));
        runtime.shutdown_timeout(Duration::ZERO);
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(work)
        .map_err(|error| Error::io("a thread that answers over HTTP", error))
}

async fn serve(address: SocketAddr, file: PathBuf, pages: Arc<Pages>, interrupt: Interrupt, tell: Tell) {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tell(&format!(
                        "cannot listen on `{address}`: {error}; trying again [{}]",
                        codes::AGENT_LISTEN
                    ));
                }
            }
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = stopped(&interrupt) => return,
        }
    };
    if let Ok(bound) = listener.local_addr()
        && durable::write(&file, format!("{bound}\n").as_bytes(), durable::SHARED).is_err()
    {
        tell(&format!("listening on {bound}; the file that says so cannot be written"));
    }
    let ending = interrupt.clone();
    let graceful = async move { stopped(&ending).await };
    let server = axum::serve(listener, router(pages)).with_graceful_shutdown(graceful);
    tokio::select! {
        ended = server => {
            if let Err(error) = ended {
                tell(&format!("HTTP ended: {error} [{}]", codes::AGENT_LISTEN));
            }
        }
        () = async { stopped(&interrupt).await; sleep(GRACE).await } => {}
    }
}

/// Ends when the flag is set.
async fn stopped(interrupt: &Interrupt) {
    while !interrupt.is_set() {
        sleep(LOOK).await;
    }
}

fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(Arc::clone(&pages), admit))
        .with_state(pages)
}

/// Lets in who may ask, and not too many at once.
async fn admit(State(pages): State<Arc<Pages>>, request: Request, next: Next) -> Response {
    if !is_allowed(pages.token.as_ref(), request.headers()) {
        let say = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, say, "a bearer token is needed\n").into_response();
    }
    let Ok(_place) = pages.places.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once\n").into_response();
    };
    next.run(request).await
}

/// Whether the request carries the token, compared in a time that says nothing of where it differs.
fn is_allowed(token: Option<&Secret<String>>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let given =
        headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let (token, given) = (token.expose().as_bytes(), given.unwrap_or_default());
    let differs = token.iter().zip(given).fold(0, |all, (one, other)| all | (one ^ other));
    token.len() == given.len() && differs == 0
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    let status = if pages.board.is_alive() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = format!("{}\n", pages.board.health());
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    match pages.board.metrics(jiff::Timestamp::now()) {
        Some(text) => ([(header::CONTENT_TYPE, METRICS)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "nothing was observed yet\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Secret::new("s3cret".to_owned());
        let allowed = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            }
            is_allowed(Some(&token), &headers)
        };
        assert!(allowed(Some("Bearer s3cret")));
        for wrong in [
            None,
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer s3cre"),
            Some("Bearer s3crets"),
            Some("s3cret"),
            Some("Basic s3cret"),
        ] {
            assert!(!allowed(wrong), "{wrong:?}");
        }
        assert!(is_allowed(None, &HeaderMap::new()));
    }
}
