//! `COPY … TO STDOUT` and `COPY … FROM STDIN`.

use super::connection::{Connection, Part, local_failure};
use super::error::answer;
use super::limits;
use postgres_protocol::message::frontend::{self, CopyData};
use retoma_core::{Error, Result};
use std::io::{Read, Write};

impl Connection {
    /// Runs a `COPY … TO STDOUT` and writes what comes to `to`. Gives the number of bytes.
    ///
    /// An error of `to` closes the connection.
    pub fn copy_out(&mut self, sql: &str, to: &mut dyn Write) -> Result<u64> {
        let mut bytes = 0;
        self.run(sql, |_, part| match part {
            Part::Copy(piece) => {
                bytes += piece.len() as u64;
                to.write_all(&piece).map_err(local_failure)
            }
            Part::Done(_) => Ok(()),
            Part::Row(_) | Part::WantsCopy => Err(answer("the statement is no `COPY … TO STDOUT`")),
        })?;
        Ok(bytes)
    }

    /// Runs a `COPY … FROM STDIN` with what `from` gives. Gives the number of rows.
    ///
    /// When `from` fails, the server is told, takes nothing of it, and the connection goes on.
    pub fn copy_in(&mut self, sql: &str, from: &mut dyn Read) -> Result<u64> {
        let mut failed = None;
        let mut tag = String::new();
        let mut has_copied = false;
        let result = self.run(sql, |connection, part| match part {
            Part::WantsCopy if !has_copied => {
                has_copied = true;
                failed = connection.send_copy(from)?;
                Ok(())
            }
            Part::Done(done) => {
                tag = done;
                Ok(())
            }
            _ => Err(answer("the statement is no `COPY … FROM STDIN`")),
        });
        // The server's error is then only the echo of ours.
        if let Some(error) = failed.filter(|_| !self.is_broken()) {
            return Err(error);
        }
        result?;
        if !has_copied {
            return Err(answer("the statement is no `COPY … FROM STDIN`"));
        }
        Ok(tag.rsplit(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or(0))
    }

    /// Sends all of `from`, or that it failed: then with its error.
    fn send_copy(&mut self, from: &mut dyn Read) -> Result<Option<Error>> {
        let mut buffer = vec![0; limits::COPY_BYTES];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.channel.put(|output| frontend::copy_fail("the data could not be read", output))?;
                    self.channel.send()?;
                    return Ok(Some(local_failure(error)));
                }
            };
            if read == 0 {
                self.channel.put(|output| {
                    frontend::copy_done(output);
                    Ok(())
                })?;
                self.channel.send()?;
                return Ok(None);
            }
            self.channel.put(|output| {
                CopyData::new(&buffer[..read])?.write(output);
                Ok(())
            })?;
            self.channel.send()?;
        }
    }
}
