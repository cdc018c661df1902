//! One context for all streams of a plugin.
//!
//! The SDK keeps a context for each stream, which it has to be told to free: Envoy enters the module once more for it. A filter that
//! keeps nothing about a stream pays for that and gets nothing. Here two callbacks are wrapped: a single stream's context is created
//! together with each root context, streams get none, and a request's headers are handed to that of their root. Envoy creates a
//! stream's context right before it hands over the headers (`Context::decodeHeaders`), so the root that was named last is theirs.
//! What host calls act on is not decided by it: Envoy knows which stream it has called for.

use anyhow::{Context, Result};
use walrus::ir::{BinaryOp, UnaryOp, Value};
use walrus::{ConstExpr, FunctionBuilder, FunctionId, GlobalId, Module, ValType};

const CREATE: &str = "proxy_on_context_create";
const HEADERS: &str = "proxy_on_request_headers";

/// Has the streams of each root of `module` share one context.
///
/// # Errors
/// Where `module` does not export the two callbacks.
pub(crate) fn share(module: &mut Module) -> Result<()> {
    let (create, headers) = (exported(module, CREATE)?, exported(module, HEADERS)?);
    let current = module.globals.add_local(ValType::I32, true, false, ConstExpr::Value(Value::I32(0)));
    let create = create_wrapper(module, create, current);
    let headers = headers_wrapper(module, headers, current);
    for (name, function) in [(CREATE, create), (HEADERS, headers)] {
        module.exports.remove(name)?;
        module.exports.add(name, function);
    }
    Ok(())
}

fn exported(module: &Module, name: &str) -> Result<FunctionId> {
    module.exports.get_func(name).with_context(|| format!("the module does not export the function {name}"))
}

/// `(context, root)`: a root context is created as ever, and with it the context of its streams, whose number for the SDK is the
/// complement of the root's. Of a stream only its root is noted.
fn create_wrapper(module: &mut Module, create: FunctionId, current: GlobalId) -> FunctionId {
    let (context, root) = (module.locals.add(ValType::I32), module.locals.add(ValType::I32));
    let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32, ValType::I32], &[]);
    builder.func_body().local_get(root).unop(UnaryOp::I32Eqz).if_else(
        None,
        |created| {
            created.local_get(context).i32_const(0).call(create);
            created.local_get(context).i32_const(-1).binop(BinaryOp::I32Xor).local_get(context).call(create);
        },
        |stream| {
            stream.local_get(root).i32_const(-1).binop(BinaryOp::I32Xor).global_set(current);
        },
    );
    builder.finish(vec![context, root], &mut module.funcs)
}

/// `(context, headers, end of stream) -> action`: the context of the root that was named last decides.
fn headers_wrapper(module: &mut Module, headers: FunctionId, current: GlobalId) -> FunctionId {
    let parameters = [ValType::I32; 3];
    let arguments = parameters.map(|kind| module.locals.add(kind));
    let [_, count, end] = arguments;
    let mut builder = FunctionBuilder::new(&mut module.types, &parameters, &[ValType::I32]);
    builder.func_body().global_get(current).local_get(count).local_get(end).call(headers);
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
    fn streams_come_and_go_in_the_context_of_their_root() {
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
        // Another root and a stream of it, then one of the first root again.
        create.call(&mut store, (3, 0)).unwrap();
        create.call(&mut store, (4, 3)).unwrap();
        assert_eq!(headers.call(&mut store, (4, 0, 0)).unwrap(), 1);
        create.call(&mut store, (5, 1)).unwrap();
        assert_eq!(headers.call(&mut store, (5, 1, 0)).unwrap(), 2);
        let expected: [(&str, &[i32]); 7] = [
            ("create", &[1, 0]),
            ("create", &[!1, 1]),
            ("headers", &[!1, 8, 1]),
            ("create", &[3, 0]),
            ("create", &[!3, 3]),
            ("headers", &[!3, 0, 0]),
            ("headers", &[!1, 1, 0]),
        ];
        assert_eq!(*store.data(), expected.map(|(name, arguments)| (name, arguments.to_vec())));
    }

    #[test]
    fn a_missing_callback_is_named() {
        let error = shared("(module)").unwrap_err();
        assert!(error.to_string().contains(CREATE), "{error}");
    }
}
