//! The host: implements what the core needs by Envoy's host calls.

use pixell_core::data_path::Header;
use pixell_core::filter_state::{self, in_wasm};
use pixell_core::hop::Direction;
use pixell_core::metrics::CHANGES;
use pixell_core::store::{CasMismatch, ChangeSignal, SharedData, layout};
use pixell_core::timestamp::Timestamp;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType, Status};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Envoy's shared data of our `vm_id`.
pub(crate) struct HostData;

impl SharedData for HostData {
    fn get(&self, key: &str) -> (Vec<u8>, u32) {
        let (value, cas) = hostcalls::get_shared_data(key).unwrap_or_default();
        (value.unwrap_or_default(), cas.unwrap_or_default())
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), CasMismatch> {
        #[cfg(feature = "test-trap")]
        trap::before_write();
        hostcalls::set_shared_data(key, Some(value), Some(cas)).map_err(|_| CasMismatch)
    }
}

/// A way to end the VM while it writes, for the test of what follows.
#[cfg(feature = "test-trap")]
mod trap {
    use std::cell::Cell;

    thread_local! {
        static WRITES: Cell<u32> = const { Cell::new(0) };
    }

    /// Ends the VM before the write whose number, from 1, the request has in `x-test-trap-write`.
    pub(super) fn before_write() {
        let wanted = super::request_header("x-test-trap-write").and_then(|number| String::from_utf8(number).ok()?.parse().ok());
        let number = if wanted.is_some() { WRITES.get() + 1 } else { 0 };
        WRITES.set(number);
        if wanted == Some(number) {
            std::process::abort();
        }
    }
}

/// The change signal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// A gauge of Envoy's: read by a host call that returns a number, the cheapest there is. It is incremented and never set, so
    /// two writers that finish out of order cannot take it back.
    Gauge(u32),
    /// A number in shared data, for an Envoy whose `stats_matcher` rejects the gauge.
    Key,
}

impl Signal {
    /// Finds out which signal works here, and raises it: if an earlier VM died between publishing a map and raising the signal, the
    /// workers learn of that map now.
    pub(crate) fn open() -> Self {
        if let Ok(id) = hostcalls::define_metric(MetricType::Gauge, CHANGES) {
            let gauge = Self::Gauge(id);
            gauge.raise();
            // A rejected stat is a null object: it takes every value and always reads 0.
            if gauge.read() != 0 {
                return gauge;
            }
        }
        log::info!("the gauge {CHANGES} is switched off (stats_matcher?); changes are signalled through shared data");
        Self::Key.raise();
        Self::Key
    }
}

impl ChangeSignal for Signal {
    fn read(&self) -> u64 {
        match self {
            Self::Gauge(id) => hostcalls::get_metric(*id).unwrap_or_default(),
            Self::Key => number(&HostData.get(layout::CHANGES).0),
        }
    }

    fn raise(&self) {
        match self {
            Self::Gauge(id) => {
                let _ = hostcalls::increment_metric(*id, 1);
            }
            Self::Key => {
                let _ = next_number(layout::CHANGES);
            }
        }
    }
}

/// Makes sure that a key for [`next_number`] exists; as with [`pixell_core::store::prepare`], otherwise the first two would get the same number.
pub(crate) fn prepare_number(key: &str) {
    if HostData.get(key).1 == 0 {
        // An unconditional write cannot mismatch.
        let _ = HostData.set(key, &[], 0);
    }
}

/// Raises the number under a key of the shared data by one and gives the new one, from 1.
pub(crate) fn next_number(key: &str) -> u64 {
    loop {
        let (bytes, cas) = HostData.get(key);
        let next = number(&bytes).wrapping_add(1);
        if HostData.set(key, &next.to_le_bytes(), cas).is_ok() {
            return next;
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// A random number, never 0.
pub(crate) fn random() -> u64 {
    // The hasher's keys come from the host's random source; the standard library has no simpler access to it.
    RandomState::new().build_hasher().finish().max(1)
}

/// A property of Envoy's ("Attributes" in its documentation) by its path, whose parts are separated by NUL; `None` if it is
/// absent or empty.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    hostcalls::get_property(vec![path]).ok().flatten()
}

/// A part of a request's head by its name, in lower case, all fields of that name joined by commas.
pub(crate) fn head(name: &str) -> Option<Vec<u8>> {
    match name {
        ":path" => property("request\0path"),
        ":method" => property("request\0method"),
        ":authority" => property("request\0host"),
        // An empty condition is an error, not a write without a condition, and an empty origin is foreign. So empty headers must be
        // distinguished from absent ones.
        "if-match" | "if-none-match" | "origin" => request_header(name).or_else(|| first_value(name)),
        _ => request_header(name),
    }
}

/// How long ago the request arrived; zero if the system clock was set back meanwhile.
pub(crate) fn request_age() -> Duration {
    let arrived = property("request\0time").and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let age =
        hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH + Duration::from_nanos(arrived)).ok());
    age.unwrap_or_default()
}

/// A request header; `None` if it is absent or empty.
pub(crate) fn request_header(name: &str) -> Option<Vec<u8>> {
    property(&Header::new(name).attribute)
}

/// The first field of a request header, perhaps an empty one. It costs Envoy less than the property does, which joins all fields.
pub(crate) fn first_value(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten()
}

/// Sets a request header, in place of all fields of that name, or removes it.
pub(crate) fn set_request_header(name: &str, value: Option<&[u8]>) -> Result<(), Status> {
    hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, value)
}

/// The same for a header that a request can do without.
pub(crate) fn try_to_set_request_header(name: &str, value: Option<&[u8]>) {
    if let Err(status) = set_request_header(name, value) {
        log::error!("the request header {name} could not be set: {status:?}");
    }
}

/// Leaves the reason of a rejection to Envoy's access log and tracing, as the filter state `wasm.pixell.rejection`: unlike a
/// response header, no agent can set it.
pub(crate) fn note_rejection(code: &str) {
    if let Err(status) = hostcalls::set_property(vec![in_wasm(filter_state::REJECTION)], Some(code.as_bytes())) {
        log::error!("the reason of a rejection could not be noted: {status:?}");
    }
}

/// [`filter_state::ROUTE`]
const NOTE: &str = in_wasm(filter_state::ROUTE);

/// Leaves to the filter of responses what it needs to know of a request that the path or the host addresses.
pub(crate) fn leave_note(note: &[u8]) {
    if let Err(status) = hostcalls::set_property(vec![NOTE], Some(note)) {
        log::error!("the route of a request could not be noted: {status:?}");
    }
}

/// What [`leave_note`] left; `None` if it did not.
pub(crate) fn note() -> Option<Vec<u8>> {
    property(NOTE)
}

/// [`filter_state::HOP`]
const HOP: &str = in_wasm(filter_state::HOP);

/// Leaves to Envoy's access log whether the request goes to a peer or was sent by one, as the filter state `wasm.pixell.hop`. Envoy's route for
/// hops matches it, too.
pub(crate) fn note_hop(direction: Direction) -> Result<(), Status> {
    hostcalls::set_property(vec![HOP], Some(direction.name().as_bytes()))
}

/// What [`note_hop`] left; `None` if it did not.
pub(crate) fn hop() -> Option<Vec<u8>> {
    property(HOP)
}

/// [`filter_state::TRAIL`]
const TRAIL: &str = in_wasm(filter_state::TRAIL);

/// Leaves the trail of a hop to the filter before the peers' cluster.
pub(crate) fn leave_trail(trail: &[u8]) -> Result<(), Status> {
    hostcalls::set_property(vec![TRAIL], Some(trail))
}

/// What [`leave_trail`] left last; `None` if it did not.
pub(crate) fn trail() -> Option<Vec<u8>> {
    property(TRAIL)
}

/// The time of day by Envoy's clock; the beginning of 1970 if it has none.
pub(crate) fn time_of_day() -> Timestamp {
    let now = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    Timestamp::from_unix(now.map_or(0, |now| now.as_secs()))
}

/// The time of Envoy's monotonic clock.
pub(crate) fn now() -> Duration {
    thread_local! {
        static BEGAN: Instant = Instant::now();
    }
    BEGAN.with(Instant::elapsed)
}

/// Leaves to Envoy's access log that this is one of the first rejections of its kind, which it logs whatever the rate.
pub(crate) fn note_first() {
    let _ = hostcalls::set_property(vec![in_wasm(filter_state::FIRST)], Some(b"1"));
}

/// The plugin's configuration text.
pub(crate) fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}
