//! Connections to a server of a test's own: a thread for each, and an end of all of them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Takes connections until it is dropped, which ends those that it keeps.
pub(crate) struct Acceptor {
    listener: TcpListener,
    port: u16,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

/// The connections of an [`Acceptor`].
#[derive(Default)]
pub(crate) struct Connections {
    streams: Mutex<Vec<TcpStream>>,
    is_stopped: AtomicBool,
}

impl Connections {
    /// Whether they are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Ends this one with the others. Those that ended already are let go.
    pub(crate) fn keep(&self, stream: &TcpStream) -> io::Result<()> {
        let kept = stream.try_clone()?;
        let mut streams = locked(&self.streams);
        streams.retain(|stream| stream.peer_addr().is_ok());
        streams.push(kept);
        Ok(())
    }

    /// The last copy of a stream closes it.
    pub(crate) fn let_go(&self, stream: &TcpStream) {
        let Ok(gone) = stream.peer_addr() else { return };
        locked(&self.streams).retain(|stream| stream.peer_addr().is_ok_and(|other| other != gone));
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("port", &self.port).finish_non_exhaustive()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Acceptor {
    /// One on a free port of the loopback address. Connections end as `serve` likes.
    ///
    /// # Panics
    /// When it cannot listen.
    #[allow(clippy::panic)]
    pub(crate) fn start(
        serve: impl Fn(TcpStream, &Connections) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        Self::on(listener.unwrap_or_else(|error| panic!("listen: {error}")), serve)
    }

    /// One on a socket that listens.
    ///
    /// # Panics
    /// When the socket cannot be used.
    #[allow(clippy::panic)]
    pub(crate) fn on(
        listener: TcpListener,
        serve: impl Fn(TcpStream, &Connections) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap_or_else(|error| panic!("listen: {error}")).port();
        let accepting = listener.try_clone().unwrap_or_else(|error| panic!("listen: {error}"));
        let connections = Arc::new(Connections::default());
        let of_thread = Arc::clone(&connections);
        let thread = std::thread::spawn(move || accept(&accepting, &of_thread, &serve));
        Self { listener, port, connections, thread: Some(thread) }
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.connections.is_stopped.store(true, Ordering::SeqCst);
        // Whatever network it is in, nothing waits for a connection any more.
        let _was_open = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).is_ok();
        for stream in locked(&self.connections.streams).iter() {
            let _was_open = stream.shutdown(Shutdown::Both).is_ok();
        }
        let ended = self.thread.take().is_some_and(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the thread that takes connections failed");
    }
}

fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    serve: &(impl Fn(TcpStream, &Connections) -> io::Result<()> + Sync),
) {
    std::thread::scope(|scope| {
        while !connections.is_stopped() {
            let Ok((client, _)) = listener.accept() else { continue };
            scope.spawn(move || {
                // Ends with the others also where they were ended a moment ago.
                let is_kept = connections.keep(&client).is_ok() && !connections.is_stopped();
                let _ended_well = is_kept && serve(client, connections).is_ok();
            });
        }
    });
}

/// Carries both directions between two connections until each has ended.
pub(crate) fn join(one: &TcpStream, other: &TcpStream) {
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ended_well = io::copy(&mut from, &mut to).is_ok();
        let _was_open = to.shutdown(Shutdown::Write).is_ok();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(one, other));
        pass(other, one);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn what_waits_is_ended_with_it_and_nobody_answers_afterwards() {
        let acceptor = Acceptor::start(|mut client, _| client.read(&mut [0]).map(drop));
        let port = acceptor.port();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        crate::wait_for_what("a connection", || {
            (!locked(&acceptor.connections.streams).is_empty()).then_some(())
        });
        drop(acceptor);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "it was ended");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
