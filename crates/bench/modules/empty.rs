//! A native filter that does nothing: it shows what Envoy spends to have one. `cargo xtask profile` compiles it by itself.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

type Ptr = *const c_void;

#[repr(C)]
pub struct Buffer {
    ptr: *const c_char,
    length: usize,
}

/// Hooks that return this value.
macro_rules! hooks {
    ($($result:ty = $value:expr => $($name:ident($($type:ty),*))*;)*) => {$($(
        #[unsafe(export_name = concat!("envoy_dynamic_module_on_", stringify!($name)))]
        pub extern "C" fn $name($(_: $type),*) -> $result { $value }
    )*)*};
}

hooks! {
    *const c_char = c"v0.2.0".as_ptr() => program_init();
    // Anything but null.
    Ptr = NonNull::<c_void>::dangling().as_ptr() => http_filter_config_new(Ptr, Buffer, Buffer) http_filter_new(Ptr, Ptr);
    // The next filter is called.
    u32 = 0 =>
        http_filter_request_headers(Ptr, Ptr, bool)
        http_filter_request_body(Ptr, Ptr, bool)
        http_filter_request_trailers(Ptr, Ptr)
        http_filter_response_headers(Ptr, Ptr, bool)
        http_filter_response_body(Ptr, Ptr, bool)
        http_filter_response_trailers(Ptr, Ptr);
    () = () =>
        http_filter_config_destroy(Ptr)
        http_filter_destroy(Ptr)
        http_filter_scheduled(Ptr, Ptr, u64)
        http_filter_stream_complete(Ptr, Ptr)
        http_filter_http_callout_done(Ptr, Ptr, u64, u32, Ptr, usize, Ptr, usize)
        http_filter_http_stream_headers(Ptr, Ptr, u64, Ptr, usize, bool)
        http_filter_http_stream_data(Ptr, Ptr, u64, Ptr, usize, bool)
        http_filter_http_stream_trailers(Ptr, Ptr, u64, Ptr, usize)
        http_filter_http_stream_complete(Ptr, Ptr, u64)
        http_filter_http_stream_reset(Ptr, Ptr, u64, u32)
        http_filter_downstream_above_write_buffer_high_watermark(Ptr, Ptr)
        http_filter_downstream_below_write_buffer_low_watermark(Ptr, Ptr);
}
