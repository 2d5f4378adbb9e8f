//! Contents that are in memory: what a source says about its own capture.

use retoma_core::Result;
use retoma_repo::backup::{Content, Found, Reader};
use retoma_repo::format::tree::Node;

pub(crate) struct Memory(Vec<u8>);

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Content for Memory {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader { bytes: std::mem::take(&mut self.0), position: 0 }))
    }
}

struct MemoryReader {
    bytes: Vec<u8>,
    position: usize,
}

impl Reader for MemoryReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.position);
        buffer[..count].copy_from_slice(&self.bytes[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}
