//! Tests of the relay, with sources and sinks in memory.

use super::*;
use std::sync::mpsc::{self, Receiver, Sender};

const LONG: Duration = Duration::from_secs(10);

/// A sink that waits for a permit before each write, and fails once no more permits can come.
struct Gate {
    permits: Receiver<()>,
    written: Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.permits.recv().map_err(|_| ErrorKind::BrokenPipe)?;
        self.written.send(bytes.to_vec()).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gate() -> (Gate, Sender<()>, Receiver<Vec<u8>>) {
    let (permit, permits) = mpsc::channel();
    let (written, seen) = mpsc::channel();
    (Gate { permits, written }, permit, seen)
}

/// A sink that takes everything and keeps it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe, too, may take only a part.
        let count = bytes.len().min(1000);
        self.0.lock().unwrap().extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source that gives pieces of the given size.
struct Pieces(Vec<u8>, usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

#[test]
fn all_output_is_relayed_in_order() {
    let text: String = (0..20_000).map(|n| format!("line {n} {}\n", "x".repeat(n % 97))).collect::<String>() + "no newline";
    for size in [1, 7, 4096, CHUNK, usize::MAX] {
        let text = if size < 100 { &text[..5000] } else { &text };
        let (out, err) = (Kept::default(), Kept::default());
        let relay = Relay::to(out.clone(), err.clone()).unwrap();
        read_by_thread(Pieces(text.as_bytes().to_vec(), size), relay.out.clone()).unwrap();
        relay.say("hello");
        relay.finish(LONG);
        assert_eq!((out.text() == text, err.text().as_str()), (true, "pixell-envoy: hello\n"), "{size}");
        assert_eq!(relay.lost(), Lost::default());
    }
}

#[test]
fn a_line_that_is_too_long_is_relayed_in_pieces() {
    let text = "x".repeat(3 * CHUNK + 5) + "\nnext\n";
    let out = Kept::default();
    let relay = Relay::to(out.clone(), io::sink()).unwrap();
    read_by_thread(Pieces(text.clone().into_bytes(), usize::MAX), relay.out.clone()).unwrap();
    relay.finish(LONG);
    assert!(out.text() == text);
}

#[test]
fn lines_beyond_the_capacity_are_dropped_and_reported() {
    let (sink, permit, seen) = gate();
    let relay = Relay::to(sink, io::sink()).unwrap();
    let line = |n: usize| format!("{n:07}{}\n", "x".repeat(992));
    let pushed = 3 * CAPACITY / 1000;
    for n in 0..pushed {
        relay.out.push(line(n).into_bytes());
    }
    assert!(relay.out.lock().bytes <= CAPACITY);
    let lost = relay.lost().stdout;
    assert_eq!(lost as usize, pushed - CAPACITY / 1000);
    // `finish` does not wait longer than its limit for the reader.
    relay.finish(Duration::from_millis(50));
    // When the reader comes back, it gets what was held, then the notice, then what comes now.
    for _ in 0..CAPACITY / 1000 - 1 {
        permit.send(()).unwrap();
        seen.recv_timeout(LONG).unwrap();
    }
    relay.out.push(b"later\n".to_vec());
    let rest: Vec<String> = (0..3)
        .map(|_| {
            permit.send(()).unwrap();
            String::from_utf8(seen.recv_timeout(LONG).unwrap()).unwrap()
        })
        .collect();
    let last = line(CAPACITY / 1000 - 1);
    assert_eq!(rest, [last, format!("{{\"log\":\"lost\",\"lines\":{lost}}}\n"), "later\n".to_owned()]);
    relay.finish(LONG);
    assert_eq!(relay.lost().stdout, lost);
}

#[test]
fn a_closed_sink_does_not_stop_the_reader() {
    let (sink, permit, _) = gate();
    drop(permit);
    let relay = Relay::to(io::sink(), sink).unwrap();
    let text = "a line\n".repeat(3 * CAPACITY / 7);
    read_by_thread(Pieces(text.into_bytes(), usize::MAX), relay.err.clone()).unwrap();
    relay.finish(LONG);
    assert_eq!(relay.lost(), Lost { stdout: 0, stderr: 3 * (CAPACITY as u64) / 7 });
}
