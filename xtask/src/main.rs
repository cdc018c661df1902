//! `cargo xtask`: the one entry point for people and CI. Each command has a file.

mod arm64;
mod bases;
mod build;
mod command;
mod demo;
mod digests;
mod endurance;
mod fuzz;
mod image;
mod image_example;
mod integration;
mod lock;
mod program;
mod python;
mod test;
mod tidy;
mod tools;
mod wheel;

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
    /// Run an agent to play with on a port: HTTP/1.1, gRPC, server-sent events or a page
    Agent(program::Arguments),
    /// Build the image's files for arm64, and check what they need
    Arm64,
    /// Measure the filter beside its floors and its alternatives, and print the table
    Bench(program::Arguments),
    Build(build::Arguments),
    /// Measure the figures of the capacity formula in docs/operations.md (about a minute)
    Capacity(program::Arguments),
    /// Start Envoy and agents, push their routes, call them, and stay up until Ctrl-C
    Demo(program::Arguments),
    /// Run the endurance tests at full length (about half an hour) and print their figures
    Endurance(program::Arguments),
    /// Run Envoy with the filter in the foreground until SIGTERM or Ctrl-C
    Envoy(program::Arguments),
    Fuzz(fuzz::Arguments),
    Image(image::Arguments),
    Integration(integration::Arguments),
    Lock(lock::Arguments),
    /// Count the instructions of a request in Envoy under Valgrind, part by part (about ten minutes)
    Profile(program::Arguments),
    Test(test::Arguments),
    Tidy(tidy::Arguments),
    Wheel(wheel::Arguments),
}

fn main() -> ExitCode {
    let succeed = |done: anyhow::Result<()>| done.map(|()| ExitCode::SUCCESS);
    let done = match Arguments::parse().task {
        Task::Agent(arguments) => succeed(program::run_without_envoy("agent", &arguments)),
        Task::Arm64 => succeed(arm64::run()),
        Task::Bench(arguments) => succeed(program::run("bench", &arguments)),
        Task::Build(arguments) => succeed(build::run(&arguments)),
        Task::Capacity(arguments) => succeed(program::run("capacity", &arguments)),
        Task::Demo(arguments) => succeed(demo::run(arguments)),
        Task::Endurance(arguments) => succeed(endurance::run(arguments)),
        Task::Envoy(arguments) => succeed(program::run("envoy", &arguments)),
        Task::Fuzz(arguments) => succeed(fuzz::run_targets(&arguments)),
        Task::Image(arguments) => succeed(image::run(&arguments)),
        Task::Integration(arguments) => succeed(integration::run(&arguments)),
        Task::Lock(arguments) => succeed(lock::run_all(&arguments)),
        Task::Profile(arguments) => succeed(program::run("profile", &arguments)),
        Task::Test(arguments) => test::run(&arguments),
        Task::Tidy(arguments) => succeed(tidy::run(&arguments)),
        Task::Wheel(arguments) => succeed(wheel::build(&arguments)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
