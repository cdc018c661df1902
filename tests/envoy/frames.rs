//! HTTP/2 (RFC 9113) frame by frame, for requests that no client library sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest payload that a peer takes unless it says otherwise, in bytes (6.5.2).
const LARGEST: usize = 16_384;

/// A field of a header section.
pub(crate) type Field = (&'static str, Vec<u8>);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole response.
    Response,
    /// The stream was reset.
    Reset,
    /// The connection ended first, with GOAWAY or without.
    Connection,
}

/// A frame (4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [0, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes() else { panic!("too long for a frame") };
    [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// What a client's connection begins with: the preface and SETTINGS.
pub(crate) fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A request of these fields without a body.
fn request(stream: u8, fields: &[Field]) -> Vec<u8> {
    // Literals that are never indexed, without Huffman coding (RFC 7541, 6.2.3).
    let literal = |(name, value): &Field| [vec![0x10], string(name.as_bytes()), string(value)].concat();
    let block: Vec<u8> = fields.iter().flat_map(literal).collect();
    let parts = block.chunks(LARGEST);
    let last = parts.len().saturating_sub(1);
    let frames = parts.enumerate().map(|(number, part)| {
        let (kind, begins) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let ends = if number == last { END_HEADERS } else { 0 };
        frame(kind, begins | ends, stream, part)
    });
    frames.collect::<Vec<_>>().concat()
}

/// A string literal (RFC 7541, 5.2), its length with a prefix of seven bits (5.1).
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    match bytes.len().checked_sub(127) {
        None => all.push(u8::try_from(bytes.len()).unwrap()),
        Some(mut rest) => {
            all.push(127);
            while rest >= 128 {
                all.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            all.push(u8::try_from(rest).unwrap());
        }
    }
    all.extend(bytes);
    all
}

/// Sends two requests on a new connection, as streams 1 and 3, and waits for their ends.
pub(crate) async fn exchange(address: SocketAddr, first: &[Field], second: &[Field]) -> [End; 2] {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    // The other side may close the connection before it has read everything.
    let _ = stream.write_all(&[opening(), request(1, first), request(3, second)].concat()).await;
    let (mut ends, mut head) = ([None; 2], [0; 9]);
    while ends.contains(&None) && stream.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, .., id] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]).try_into().unwrap()];
        if stream.read_exact(&mut payload).await.is_err() || kind == GOAWAY {
            break;
        }
        let end = match kind {
            DATA | HEADERS if flags & END_STREAM != 0 => End::Response,
            RST_STREAM => End::Reset,
            _ => continue,
        };
        // A stream that ends with its response may be reset afterwards.
        ends[usize::from(id / 2)].get_or_insert(end);
    }
    ends.map(|end| end.unwrap_or(End::Connection))
}
