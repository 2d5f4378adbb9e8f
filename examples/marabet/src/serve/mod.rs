//! The HTTP service: start, listen, stop.
//!
//! Order of a stop (SIGTERM, SIGINT or SIGHUP): no new connection is taken, requests under way are answered within
//! [`GRACE`], then the database is closed (which moves the WAL into it) and the function returns.

mod request_log;
mod routes;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{Config, Layout};
use crate::files::write_atomic;
use crate::model::ModelSlot;
use crate::store::SqliteStore;

use request_log::RequestLog;
use routes::App;

/// How long a stop waits for requests under way.
const GRACE: Duration = Duration::from_secs(5);
/// How long it waits then for blocking calls that still run.
const ABANDON: Duration = Duration::from_secs(1);
/// Threads for calls that block on the disk.
const BLOCKING_THREADS: usize = 8;

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The root folder; see [`Layout`].
    pub root: PathBuf,
    /// The TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Gets `127.0.0.1:PORT` and a newline, as a whole, once the service listens.
    pub port_file: Option<PathBuf>,
}

/// Runs the service until a signal stops it. Blocks the thread and builds its own runtime, so don't call it in one.
///
/// Only a wrong configuration or an address in use is an error. With a missing or damaged model or database the
/// service runs, says so on `/healthz`, and recovers by itself when they are back.
pub fn serve(options: &ServeOptions) -> Result<()> {
    let layout = Layout::new(&options.root);
    let config = Config::read(&layout.config())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::io("asynchronous runtime", error))?;
    let result = runtime.block_on(run(options, &layout, config));
    runtime.shutdown_timeout(ABANDON);
    result
}

async fn run(options: &ServeOptions, layout: &Layout, config: Config) -> Result<()> {
    // Before listening, so that whoever sees the port may already stop us.
    let signals = Signals::catch()?;
    let model = ModelSlot::new(layout.models().join(&config.model), config.features);
    let app = Arc::new(App::new(
        config,
        layout.models(),
        model,
        Box::new(SqliteStore::new(layout.database())),
        RequestLog::new(layout.log()),
    ));
    app.load_model().await?;

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let listener = TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))?;
    let bound = listener.local_addr().map_err(|error| cannot_listen(address, &error))?;
    if let Some(path) = &options.port_file {
        write_atomic(path, format!("{bound}\n").as_bytes())?;
    }

    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, routes::router(app)).with_graceful_shutdown(async move {
        signals.wait().await;
        // Nobody listens any more only when the server has ended by itself.
        stopping.send(()).unwrap_or_default();
    });
    let out_of_patience = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(GRACE).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = server => ended.map_err(|error| Error::io(bound, error)),
        () = out_of_patience => Ok(()),
    }
}

struct Signals([Signal; 3]);

impl Signals {
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).map_err(|error| Error::io("signal handler", error));
        Ok(Self([
            catch(SignalKind::terminate())?,
            catch(SignalKind::interrupt())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    async fn wait(mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
            _ = hangup.recv() => {},
        }
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, codes::SAMPLE_LISTEN, format!("cannot listen on `{address}`: {error}"))
        .with_hint("choose another port, or 0 for a free one")
}
