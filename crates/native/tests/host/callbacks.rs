//! The callbacks of the stand-in, by the names that the module asks for.

use std::ffi::c_void;

use pixell_native::abi::{Buffer, HttpHeader};

use super::{CALLS, Config, Envoy, LOG, Response, buffer, end, lock};

type Ptr = *mut c_void;

fn bytes(buffer: Buffer) -> Vec<u8> {
    if buffer.length == 0 {
        return Vec::new();
    }
    // SAFETY: the module gives a pointer to as many bytes.
    unsafe { std::slice::from_raw_parts(buffer.ptr.cast::<u8>(), buffer.length) }.to_vec()
}

fn text(buffer: Buffer) -> String {
    String::from_utf8(bytes(buffer)).unwrap()
}

fn of<'a>(stream: Ptr) -> &'a mut Envoy {
    // SAFETY: the module gives back what it was given, and no other reference is held meanwhile.
    unsafe { &mut *stream.cast::<Envoy>() }
}

/// The request's headers, or the response's, or its trailers.
fn headers(stream: Ptr, kind: u32) -> &'static mut Vec<(String, Vec<u8>)> {
    let envoy = of(stream);
    match kind {
        0 => &mut envoy.headers,
        2 => &mut envoy.response_headers,
        3 => &mut envoy.response_trailers,
        other => panic!("no headers of kind {other}"),
    }
}

/// The metrics of the configuration that made a stream.
fn metric(stream: Ptr, id: usize, labels: *mut Buffer, count: usize) -> &'static mut u64 {
    // SAFETY: configurations outlive their streams, and the module gives as many labels as it says.
    let (config, label) = unsafe {
        let labels: Vec<_> = (0..count).map(|n| text(*labels.add(n))).collect();
        (&mut *of(stream).config.unwrap(), labels.join(","))
    };
    config.metrics.get_mut(id).unwrap().1.entry(label).or_default()
}

fn define(config: Ptr, name: Buffer, id: *mut usize) -> u32 {
    // SAFETY: the module gives back what it was given, and a place for the number.
    unsafe {
        let config = &mut *config.cast::<Config>();
        config.metrics.push((text(name), [(String::new(), 0)].into()));
        *id = config.metrics.len() - 1;
    }
    0
}

macro_rules! callbacks {
    ($(fn $name:ident($($argument:tt: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        #[unsafe(export_name = concat!("envoy_dynamic_module_callback_", stringify!($name)))]
        extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
    )*};
}

callbacks! {
    fn log(_: u32, message: Buffer) {
        lock(&LOG).push(text(message));
    }

    fn is_validation_mode() -> bool {
        false
    }

    fn http_get_header(stream: Ptr, kind: u32, key: Buffer, result: *mut Buffer, index: usize, size: *mut usize) -> bool {
        let key = text(key);
        let values: Vec<_> = headers(stream, kind).iter().filter(|(name, _)| *name == key).map(|(_, value)| value).collect();
        // SAFETY: the module gives places for both.
        unsafe {
            *size = values.len();
            *result = values.get(index).map_or(Buffer { ptr: std::ptr::null(), length: 0 }, |value| buffer(value));
        }
        values.len() > index
    }

    fn http_get_headers_size(stream: Ptr, kind: u32) -> usize {
        headers(stream, kind).len()
    }

    fn http_get_headers(stream: Ptr, kind: u32, result: *mut HttpHeader) -> bool {
        for (n, (name, value)) in headers(stream, kind).iter().enumerate() {
            // SAFETY: the module gives as many places as it was told.
            unsafe { result.add(n).write(HttpHeader { key: buffer(name.as_bytes()), value: buffer(value) }) };
        }
        true
    }

    fn http_set_header(stream: Ptr, kind: u32, key: Buffer, value: Buffer) -> bool {
        let (key, is_removed) = (text(key), value.ptr.is_null());
        let headers = headers(stream, kind);
        headers.retain(|(name, _)| *name != key);
        if !is_removed {
            headers.push((key, bytes(value)));
        }
        true
    }

    fn http_add_header(stream: Ptr, kind: u32, key: Buffer, value: Buffer) -> bool {
        headers(stream, kind).push((text(key), bytes(value)));
        true
    }

    fn http_append_body(stream: Ptr, kind: u32, part: Buffer) -> bool {
        let envoy = of(stream);
        match kind {
            2 => envoy.responded.push(bytes(part)),
            3 => envoy.response_body.extend(bytes(part)),
            _ => {}
        }
        true
    }

    fn http_drain_body(stream: Ptr, kind: u32, _: usize) -> bool {
        if kind == 2 {
            of(stream).responded.clear();
        }
        true
    }

    fn http_clear_route_cache(_: Ptr) {}

    fn http_set_filter_state_typed(stream: Ptr, key: Buffer, value: Buffer) -> bool {
        of(stream).state.insert(text(key), bytes(value));
        true
    }

    fn http_set_filter_state_bytes(stream: Ptr, key: Buffer, value: Buffer) -> bool {
        of(stream).state.insert(text(key), bytes(value));
        true
    }

    fn http_get_filter_state_bytes(stream: Ptr, key: Buffer, result: *mut Buffer) -> bool {
        let value = of(stream).state.get(&text(key));
        if let Some(value) = value {
            // SAFETY: the module gives a place for it.
            unsafe { *result = buffer(value) };
        }
        value.is_some()
    }

    fn http_filter_get_attribute_string(stream: Ptr, id: u32, result: *mut Buffer) -> bool {
        let value = of(stream).upstream.as_ref().filter(|_| id == 41);
        if let Some(value) = value {
            // SAFETY: the module gives a place for it.
            unsafe { *result = buffer(value) };
        }
        value.is_some()
    }

    fn http_filter_get_attribute_int(_: Ptr, _: u32, _: *mut u64) -> bool {
        false
    }

    fn http_send_response(stream: Ptr, status: u32, headers: *mut HttpHeader, size: usize, body: Buffer, _: Buffer) {
        // SAFETY: the module gives as many headers as it says.
        let headers = unsafe { std::slice::from_raw_parts(headers, size) };
        let headers = headers.iter().map(|header| (text(header.key), text(header.value))).collect();
        let envoy = of(stream);
        envoy.response = Some(Response { status, headers, body: bytes(body) });
        if envoy.ends_with_response {
            end(stream.cast());
        }
    }

    fn http_get_body_size(stream: Ptr, kind: u32) -> usize {
        of(stream).body(kind).iter().map(|part| part.len()).sum()
    }

    fn http_get_body_chunks_size(stream: Ptr, kind: u32) -> usize {
        of(stream).body(kind).len()
    }

    fn http_get_body_chunks(stream: Ptr, kind: u32, chunks: *mut Buffer) -> bool {
        for (n, part) in of(stream).body(kind).into_iter().enumerate() {
            // SAFETY: the module gives as many places as it was told.
            unsafe { *chunks.add(n) = buffer(part) };
        }
        true
    }

    fn http_filter_config_define_counter(config: Ptr, name: Buffer, _: *mut Buffer, _: usize, id: *mut usize) -> u32 {
        define(config, name, id)
    }

    fn http_filter_config_define_gauge(config: Ptr, name: Buffer, _: *mut Buffer, _: usize, id: *mut usize) -> u32 {
        define(config, name, id)
    }

    fn http_filter_increment_counter(stream: Ptr, id: usize, labels: *mut Buffer, count: usize, value: u64) -> u32 {
        *metric(stream, id, labels, count) += value;
        0
    }

    fn http_filter_increment_gauge(stream: Ptr, id: usize, labels: *mut Buffer, count: usize, value: u64) -> u32 {
        *metric(stream, id, labels, count) += value;
        0
    }

    fn http_filter_set_gauge(stream: Ptr, id: usize, labels: *mut Buffer, count: usize, value: u64) -> u32 {
        *metric(stream, id, labels, count) = value;
        0
    }

    fn http_filter_scheduler_new(stream: Ptr) -> Ptr {
        Box::into_raw(Box::new(of(stream).number)).cast()
    }

    fn http_filter_scheduler_commit(scheduler: Ptr, number: u64) {
        // SAFETY: made above, and not deleted.
        lock(&CALLS).push((unsafe { *scheduler.cast::<u64>() }, number));
    }

    fn http_filter_scheduler_delete(scheduler: Ptr) {
        // SAFETY: made above, and deleted once.
        drop(unsafe { Box::from_raw(scheduler.cast::<u64>()) });
    }
}
