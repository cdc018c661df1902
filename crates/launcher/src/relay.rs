//! Relays Envoy's standard output and standard error to the container's.
//!
//! A pipe that nobody reads fills up. Envoy's workers then wait to write to standard error, and the buffer of the access log, which goes to
//! standard output, grows without limit. So the entry point always reads both, holds up to `CAPACITY` bytes of each while the container's
//! output takes nothing, and drops lines beyond that.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of each stream that are held: what Envoy writes in half a second at its fastest.
const CAPACITY: usize = 4 << 20;
/// Most bytes of one read. A longer line is relayed in pieces.
const CHUNK: usize = 64 << 10;
/// How long to wait before writing again to a non-blocking sink that takes nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// Both streams.
#[derive(Clone, Debug)]
pub struct Relay {
    out: Arc<Queue>,
    err: Arc<Queue>,
}

/// How many lines of each stream have been dropped so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Of standard output: the access log.
    pub stdout: u64,
    /// Of standard error: Envoy's own log, and the entry point's.
    pub stderr: u64,
}

impl Relay {
    /// Relays to the standard output and standard error of this process.
    ///
    /// # Errors
    /// If a thread cannot be started, or a stream is closed.
    pub fn start() -> io::Result<Self> {
        let own = |stream: io::Result<std::os::fd::OwnedFd>| stream.map(File::from);
        let out = own(io::stdout().as_fd().try_clone_to_owned())?;
        let err = own(io::stderr().as_fd().try_clone_to_owned())?;
        Self::to(out, err)
    }

    /// As [`Relay::start`], to these sinks.
    fn to(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> io::Result<Self> {
        let relay = Self { out: Arc::new(Queue::new(out_notice)), err: Arc::new(Queue::new(err_notice)) };
        let (queue, name) = (relay.out.clone(), "stdout to container");
        thread::Builder::new().name(name.to_owned()).spawn(move || queue.write_to(out))?;
        let (queue, name) = (relay.err.clone(), "stderr to container");
        thread::Builder::new().name(name.to_owned()).spawn(move || queue.write_to(err))?;
        Ok(relay)
    }

    /// Relays the output of a child process.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn take(&self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> io::Result<()> {
        if let Some(stdout) = stdout {
            read_by_thread(stdout, self.out.clone())?;
        }
        if let Some(stderr) = stderr {
            read_by_thread(stderr, self.err.clone())?;
        }
        Ok(())
    }

    /// Writes a line of the entry point's own to standard error. It never waits.
    pub fn say(&self, message: &str) {
        self.err.push(format!("pixell-envoy: {message}\n").into_bytes());
    }

    /// How many lines have been dropped so far.
    #[must_use]
    pub fn lost(&self) -> Lost {
        Lost { stdout: self.out.lock().lost, stderr: self.err.lock().lost }
    }

    /// Waits until the child's streams have ended and everything held has been written, but at most for `limit`.
    pub fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.out.wait_until_done(deadline);
        self.err.wait_until_done(deadline);
    }
}

fn out_notice(lines: u64) -> Vec<u8> {
    format!("{{\"log\":\"lost\",\"lines\":{lines}}}\n").into_bytes()
}

fn err_notice(lines: u64) -> Vec<u8> {
    format!("pixell-envoy: {lines} lines of this log were dropped, because nobody read them\n").into_bytes()
}

/// What has been read from Envoy and not yet written to the sink.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// The line that says how many lines were dropped.
    notice: fn(u64) -> Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of `chunks` and of the chunk that is being written.
    bytes: usize,
    /// Lines dropped so far.
    lost: u64,
    /// Those of them that no notice has reported yet.
    unreported: u64,
    /// How many threads read into this queue.
    readers: usize,
}

impl Queue {
    fn new(notice: fn(u64) -> Vec<u8>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), notice }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. Even if one did, the state would be good enough to go on relaying.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole lines, or drops them if there is no room.
    fn push(&self, chunk: Vec<u8>) {
        let mut state = self.lock();
        if state.bytes + chunk.len() > CAPACITY {
            state.lose(&chunk);
            return;
        }
        // The dropped lines came before this chunk, so their notice goes first.
        let unreported = std::mem::take(&mut state.unreported);
        let notice = if unreported == 0 { Vec::new() } else { (self.notice)(unreported) };
        for chunk in [notice, chunk] {
            if !chunk.is_empty() {
                state.bytes += chunk.len();
                state.chunks.push_back(chunk);
            }
        }
        self.changed.notify_all();
    }

    /// Waits for the next chunk.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                return chunk;
            }
            if state.unreported > 0 {
                let notice = (self.notice)(std::mem::take(&mut state.unreported));
                state.bytes += notice.len();
                return notice;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes all chunks to `sink`, forever.
    fn write_to(&self, mut sink: impl Write) {
        loop {
            let chunk = self.next();
            let written = write_all(&mut sink, &chunk);
            let mut state = self.lock();
            state.bytes -= chunk.len();
            if written.is_err() {
                state.lose(&chunk);
                // A notice could not be written either.
                state.unreported = 0;
            }
            self.changed.notify_all();
        }
    }

    fn wait_until_done(&self, deadline: Instant) {
        let mut state = self.lock();
        while state.readers > 0 || state.bytes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn lose(&mut self, chunk: &[u8]) {
        let lines = chunk.iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
        self.lost += lines;
        self.unreported += lines;
    }
}

fn read_by_thread(source: impl Read + Send + 'static, queue: Arc<Queue>) -> io::Result<()> {
    queue.lock().readers += 1;
    thread::Builder::new().name("from Envoy".to_owned()).spawn(move || {
        read_from(source, &queue);
        queue.lock().readers -= 1;
        queue.changed.notify_all();
    })?;
    Ok(())
}

/// Reads `source` to its end and adds whole lines to `queue`.
fn read_from(mut source: impl Read, queue: &Queue) {
    let mut buffer = vec![0; CHUNK];
    let mut filled = 0;
    loop {
        let read = source.read(buffer.get_mut(filled..).unwrap_or_default());
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        let (ended, filled_now) = (count == 0, filled + count);
        let content = buffer.get(..filled_now).unwrap_or_default();
        let lines = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = if ended || (lines == 0 && filled_now == CHUNK) { filled_now } else { lines };
        if whole > 0 {
            queue.push(content.get(..whole).unwrap_or_default().to_vec());
            buffer.copy_within(whole..filled_now, 0);
        }
        if ended {
            return;
        }
        filled = filled_now - whole;
    }
}

/// Writes all `bytes`, however long that takes.
fn write_all(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the stream has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
