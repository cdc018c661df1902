//! One context for all streams of a VM.
//!
//! The SDK keeps a context for each stream, for which Envoy enters the module when the stream begins and again when it ends. A
//! filter that keeps nothing about a stream pays for that and gets nothing. Here two callbacks are wrapped: the context of a
//! single stream is created with the first root context, streams get none, and each request's headers are handed to that one. What
//! host calls act on is not decided by it: Envoy knows which stream it has called for.

use anyhow::{Context, Result};
use walrus::ir::{UnaryOp, Value};
use walrus::{ConstExpr, FunctionBuilder, FunctionId, Module, ValType};

/// The number that the shared context has for the SDK. Envoy counts its contexts up from 1 and never comes here.
const SHARED: i32 = -1;

const CREATE: &str = "proxy_on_context_create";
const HEADERS: &str = "proxy_on_request_headers";

/// Has all streams of `module` share one context.
///
/// # Errors
/// Where `module` does not export the two callbacks.
pub(crate) fn share(module: &mut Module) -> Result<()> {
    let (create, headers) = (exported(module, CREATE)?, exported(module, HEADERS)?);
    let create = create_wrapper(module, create);
    let headers = headers_wrapper(module, headers);
    for (name, function) in [(CREATE, create), (HEADERS, headers)] {
        module.exports.remove(name)?;
        module.exports.add(name, function);
    }
    Ok(())
}

fn exported(module: &Module, name: &str) -> Result<FunctionId> {
    module.exports.get_func(name).with_context(|| format!("the module does not export the function {name}"))
}

/// `(context, root)`: a root context is created as ever, the first one together with the shared stream.
fn create_wrapper(module: &mut Module, create: FunctionId) -> FunctionId {
    let is_there = module.globals.add_local(ValType::I32, true, false, ConstExpr::Value(Value::I32(0)));
    let (context, root) = (module.locals.add(ValType::I32), module.locals.add(ValType::I32));
    let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32, ValType::I32], &[]);
    builder.func_body().local_get(root).unop(UnaryOp::I32Eqz).if_else(
        None,
        |first| {
            first.local_get(context).i32_const(0).call(create);
            first.global_get(is_there).unop(UnaryOp::I32Eqz).if_else(
                None,
                |shared| {
                    shared.i32_const(1).global_set(is_there);
                    shared.i32_const(SHARED).local_get(context).call(create);
                },
                |_| {},
            );
        },
        |_| {},
    );
    builder.finish(vec![context, root], &mut module.funcs)
}

/// `(context, headers, end of stream) -> action`: whichever the stream, the shared context decides.
fn headers_wrapper(module: &mut Module, headers: FunctionId) -> FunctionId {
    let parameters = [ValType::I32; 3];
    let arguments = parameters.map(|kind| module.locals.add(kind));
    let [_, count, end] = arguments;
    let mut builder = FunctionBuilder::new(&mut module.types, &parameters, &[ValType::I32]);
    builder.func_body().i32_const(SHARED).local_get(count).local_get(end).call(headers);
    builder.finish(arguments.to_vec(), &mut module.funcs)
}

#[cfg(test)]
mod tests {
    use wasmi::{Caller, Engine, Linker, Store};

    use super::*;

    /// What the SDK is called with.
    type Seen = Vec<(&'static str, Vec<i32>)>;

    /// A module whose callbacks do nothing but tell the host what they were called with.
    const SDK: &str = r#"(module
        (import "test" "create" (func $create (param i32 i32)))
        (import "test" "headers" (func $headers (param i32 i32 i32) (result i32)))
        (func (export "proxy_on_context_create") (param i32 i32) (call $create (local.get 0) (local.get 1)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $headers (local.get 0) (local.get 1) (local.get 2))))"#;

    fn shared(module: &str) -> Result<Vec<u8>> {
        let mut module = Module::from_buffer(&wat::parse_str(module)?)?;
        share(&mut module)?;
        Ok(module.emit_wasm())
    }

    #[test]
    fn streams_come_and_go_in_one_context() {
        let engine = Engine::default();
        let module = wasmi::Module::new(&engine, shared(SDK).unwrap()).unwrap();
        let mut linker = Linker::<Seen>::new(&engine);
        let create = |mut caller: Caller<'_, Seen>, context, root| caller.data_mut().push(("create", vec![context, root]));
        linker.func_wrap("test", "create", create).unwrap();
        let headers = |mut caller: Caller<'_, Seen>, context, count, end| {
            caller.data_mut().push(("headers", vec![context, count, end]));
            count + 1
        };
        linker.func_wrap("test", "headers", headers).unwrap();
        let mut store = Store::new(&engine, Seen::new());
        let instance = linker.instantiate_and_start(&mut store, &module).unwrap();
        let create = instance.get_typed_func::<(i32, i32), ()>(&store, CREATE).unwrap();
        let headers = instance.get_typed_func::<(i32, i32, i32), i32>(&store, HEADERS).unwrap();

        create.call(&mut store, (1, 0)).unwrap();
        create.call(&mut store, (2, 1)).unwrap();
        assert_eq!(headers.call(&mut store, (2, 8, 1)).unwrap(), 9);
        // Another configuration, and a stream of it.
        create.call(&mut store, (3, 0)).unwrap();
        create.call(&mut store, (4, 3)).unwrap();
        assert_eq!(headers.call(&mut store, (4, 0, 0)).unwrap(), 1);
        let expected: [(&str, &[i32]); 5] = [
            ("create", &[1, 0]),
            ("create", &[SHARED, 1]),
            ("headers", &[SHARED, 8, 1]),
            ("create", &[3, 0]),
            ("headers", &[SHARED, 0, 0]),
        ];
        assert_eq!(*store.data(), expected.map(|(name, arguments)| (name, arguments.to_vec())));
    }

    #[test]
    fn a_missing_callback_is_named() {
        let error = shared("(module)").unwrap_err();
        assert!(error.to_string().contains(CREATE), "{error}");
    }
}
