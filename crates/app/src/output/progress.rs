//! Progress on a terminal: a bar with an estimate; elsewhere a plain line every few seconds.

use super::Printer;
use indicatif::{ProgressBar, ProgressStyle};
use retoma_core::units::{ByteSize, counted, span};
use retoma_repo::backup::Progress;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(10);

/// Shows a [`Progress`] until it is dropped.
#[derive(Debug)]
pub(crate) struct Display {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts to show `progress` under the name of what is being done.
    pub(crate) fn start(printer: Printer, doing: &str, progress: &Arc<Progress>) -> Self {
        Self::counting(printer, doing, progress, ("file", "files"))
    }

    /// As [`Display::start`], for what counts other things than files.
    pub(crate) fn counting(
        printer: Printer,
        doing: &str,
        progress: &Arc<Progress>,
        (one, many): (&'static str, &'static str),
    ) -> Self {
        if printer.quiet || printer.json {
            return Self { stop: None, thread: None };
        }
        let (stop, stopped) = sync_channel::<()>(1);
        let (progress, doing) = (Arc::clone(progress), doing.to_owned());
        let terminal = std::io::stderr().is_terminal();
        let show = move || {
            let bar = if terminal { bar(&doing) } else { ProgressBar::hidden() };
            let (start, mut said) = (Instant::now(), Instant::now());
            while stopped.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                let ((files, bytes), (_, total)) = (progress.done(), progress.total());
                if total > 0 && bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style(true));
                }
                bar.set_position(bytes);
                bar.set_message(counted(files, one, many));
                if !terminal && said.elapsed() > LINE {
                    said = Instant::now();
                    let elapsed = span(Duration::from_secs(start.elapsed().as_secs()));
                    printer.note(&format!(
                        "{doing}: {}, {}, {elapsed}",
                        counted(files, one, many),
                        ByteSize(bytes)
                    ));
                }
            }
            bar.finish_and_clear();
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{prefix} {bar:24} {bytes} of {total_bytes}, {msg}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{prefix} {spinner} {bytes}, {msg}, {binary_bytes_per_sec}, {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bar(doing: &str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_style(style(false));
    bar.set_prefix(doing.to_owned());
    bar
}
