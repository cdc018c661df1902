//! `cargo xtask`: the one entry point for people and CI. One command a file.

mod bases;
mod bench;
mod build;
mod capacity;
mod command;
mod demo;
mod endurance;
mod envoy;
mod fuzz;
mod image;
mod integration;
mod ports;
mod python;
mod shutdown;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs and tests pixell-envoy.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bench(bench::Arguments),
    Build(build::Arguments),
    Capacity(capacity::Arguments),
    Demo(demo::Arguments),
    Endurance(endurance::Arguments),
    Envoy(envoy::Arguments),
    Fuzz(fuzz::Arguments),
    Image(image::Arguments),
    Integration(integration::Arguments),
    Test(test::Arguments),
    Tidy(tidy::Arguments),
}

fn main() -> ExitCode {
    let succeed = |done: anyhow::Result<()>| done.map(|()| ExitCode::SUCCESS);
    let done = match Arguments::parse().task {
        Task::Bench(arguments) => succeed(bench::run(&arguments)),
        Task::Build(arguments) => succeed(build::run(&arguments)),
        Task::Capacity(arguments) => succeed(capacity::run(&arguments)),
        Task::Demo(arguments) => succeed(demo::run(&arguments)),
        Task::Endurance(arguments) => succeed(endurance::run(&arguments)),
        Task::Envoy(arguments) => succeed(envoy::run(&arguments)),
        Task::Fuzz(arguments) => succeed(fuzz::run_targets(&arguments)),
        Task::Image(arguments) => succeed(image::run(&arguments)),
        Task::Integration(arguments) => succeed(integration::run(&arguments)),
        Task::Test(arguments) => test::run(&arguments),
        Task::Tidy(arguments) => succeed(tidy::run(&arguments)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
