//! router.wasm: the filter's role `router` and nothing that only the other role reaches.
#![cfg(target_os = "wasi")]
#![expect(missing_docs, reason = "the export that the macro makes has none")]

proxy_wasm::main! {{
    pixell_router::start_router();
}}
