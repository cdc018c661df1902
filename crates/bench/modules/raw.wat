;; The least that a filter of this kind can do: read the id, read a number that all workers share, and set an address. It looks up
;; nothing and checks nothing. The bench fills in ADDRESS, ADDRESS_LENGTH and ARGUMENT_LENGTH.
(module
  (import "env" "proxy_define_metric" (func $define_metric (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_metric" (func $get_metric (param i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_call_foreign_function" (func $call_foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Host calls write their results at address 0; the host writes the header's value at 1024.
  (data (i32.const 64) "x-deployment-id")
  (data (i32.const 96) "bench_raw")
  (data (i32.const 128) "set_envoy_filter_state")
  (data (i32.const 256) "\0a\33envoy.network.transport_socket.original_dst_address\12ADDRESS_LENGTHADDRESS\18\01")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    ;; Defines a gauge and keeps its number at address 32.
    (drop (call $define_metric (i32.const 1) (i32.const 96) (i32.const 9) (i32.const 32)))
    (i32.const 1))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get_header (i32.const 0) (i32.const 64) (i32.const 15) (i32.const 0) (i32.const 4)))
    (drop (call $get_metric (i32.load (i32.const 32)) (i32.const 8)))
    (drop (call $call_foreign
      (i32.const 128) (i32.const 22) (i32.const 256) (i32.const ARGUMENT_LENGTH) (i32.const 16) (i32.const 20)))
    (i32.const 0)))
