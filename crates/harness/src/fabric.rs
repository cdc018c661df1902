//! Several tasks on one machine, each with an address of its own: network namespaces behind a router, which is a namespace, too.
//!
//! Needs iproute2, and root or a user namespace (see [`may_make_namespaces`]).

use std::fs::File;
use std::future::Future;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::{mpsc, oneshot};

/// All addresses of a fabric, as a setting wants them. They are reserved for tests of networks (RFC 2544).
pub const NETWORK: &str = "198.18.0.0/16";

/// The longest that a link may take to carry packets.
const LINK: Duration = Duration::from_secs(10);

/// Namespaces that reach each other through a router. All end when it is dropped.
///
/// The path between two of them passes the router, so a cut is silent, as it is between machines: packets vanish, and nothing reports an
/// unreachable address.
pub struct Fabric {
    router: Namespace,
    tasks: Vec<Namespace>,
}

impl Fabric {
    /// Makes `tasks` namespaces, at most 250.
    ///
    /// # Errors
    /// If this process may not make namespaces, or `ip` cannot be run.
    pub fn new(tasks: u8) -> Result<Self> {
        let router = Namespace::new("router")?;
        router.enter(|| {
            let forward = "/proc/sys/net/ipv4/ip_forward";
            std::fs::write(forward, "1").with_context(|| format!("writing {forward}"))
        })?;
        let mut fabric = Self { router, tasks: Vec::new() };
        for number in 0..tasks {
            let task = fabric.make(number.into())?;
            fabric.tasks.push(task);
        }
        for (number, task) in fabric.tasks.iter().enumerate() {
            fabric.wait_for_link(number, task)?;
        }
        Ok(fabric)
    }

    /// Adds a namespace and returns its number.
    ///
    /// # Errors
    /// As [`Fabric::new`].
    pub fn add(&mut self) -> Result<usize> {
        let number = self.tasks.len();
        ensure!(number < 250, "a fabric has at most 250 tasks");
        let task = self.make(number)?;
        self.wait_for_link(number, &task)?;
        self.tasks.push(task);
        Ok(number)
    }

    /// Ends the namespace of a task with all that runs in it, and makes another one with the same address.
    ///
    /// # Errors
    /// As [`Fabric::new`].
    pub fn replace(&mut self, number: usize) -> Result<()> {
        // The other end goes with it.
        self.router.ip(&format!("link del {}", device(number)))?;
        let task = self.make(number)?;
        self.wait_for_link(number, &task)?;
        *self.tasks.get_mut(number).with_context(|| format!("there is no task {number}"))? = task;
        Ok(())
    }

    fn make(&self, number: usize) -> Result<Namespace> {
        let task = Namespace::new(&format!("task{number}"))?;
        let (device, there, here, thread) = (device(number), address(number), gateway(number), task.thread);
        self.router.ip(&format!("link add {device} type veth peer name eth0 netns {thread}"))?;
        self.router.ip(&format!("addr add {here}/30 dev {device}"))?;
        self.router.ip(&format!("link set {device} up"))?;
        task.ip(&format!("addr add {there}/30 dev eth0"))?;
        task.ip("link set eth0 up")?;
        task.ip(&format!("route add default via {here}"))?;
        Ok(task)
    }

    /// Waits until both ends of a task's link carry packets. Linux turns a link on once a second at most, and drops packets until then:
    /// <https://github.com/torvalds/linux/blob/v6.12/net/core/link_watch.c>
    fn wait_for_link(&self, number: usize, task: &Namespace) -> Result<()> {
        let started = Instant::now();
        for (namespace, device) in [(&self.router, device(number)), (task, "eth0".to_owned())] {
            while !namespace.ip(&format!("-oneline link show dev {device}"))?.contains(" state UP ") {
                ensure!(started.elapsed() < LINK, "the link of task {number} is not up after {LINK:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// The address of a task.
    #[must_use]
    pub fn address(&self, task: usize) -> Ipv4Addr {
        address(task)
    }

    /// The address of [`outside`](Self::outside), as a task sees it.
    #[must_use]
    pub fn gateway(&self, task: usize) -> Ipv4Addr {
        gateway(task)
    }

    /// The namespace of a task.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn task(&self, task: usize) -> Result<&Namespace> {
        self.tasks.get(task).with_context(|| format!("there is no task {task}"))
    }

    /// The namespace between the tasks, where their clients are.
    #[must_use]
    pub const fn outside(&self) -> &Namespace {
        &self.router
    }

    /// Lets all packets to and from a task vanish, or ends that.
    ///
    /// # Errors
    /// If `ip` cannot be run.
    pub fn cut(&self, task: usize, cut: bool) -> Result<()> {
        let (device, there, action) = (device(task), address(task), if cut { "add" } else { "del" });
        // Before all other rules, which begin at 0: the one for packets that the router itself sends, then those of the others.
        for what in [format!("from all to {there}"), format!("from all iif {device}")] {
            self.router.ip(&format!("rule {action} {what} blackhole priority {}", task + 1))?;
        }
        Ok(())
    }
}

/// The name of the router's interface to a task.
fn device(task: usize) -> String {
    format!("task{task}")
}

fn address(task: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, u8::try_from(task).unwrap_or(u8::MAX), 2)
}

fn gateway(task: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, u8::try_from(task).unwrap_or(u8::MAX), 1)
}

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A network namespace and the thread that lives in it. What the thread starts, threads and processes, is in the namespace, too.
pub struct Namespace {
    jobs: mpsc::UnboundedSender<Job>,
    /// What `setns` needs to enter it.
    file: File,
    /// The number of the thread, by which `ip` finds the namespace.
    thread: i32,
}

impl Namespace {
    fn new(name: &str) -> Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let (tell, told) = std::sync::mpsc::channel();
        let body = move || {
            let entered = enter_new();
            let made = entered.and_then(|made| Ok((tokio::runtime::Builder::new_current_thread().enable_all().build()?, made)));
            let runtime = match made {
                Ok((runtime, made)) => {
                    let _ = tell.send(Ok(made));
                    runtime
                }
                Err(error) => return drop(tell.send(Err(error))),
            };
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                while let Some(job) = queue.recv().await {
                    tokio::task::spawn_local(job());
                }
            });
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(body).context("starting a thread")?;
        let (file, thread) = told.recv().context("a thread ended at once")??;
        let namespace = Self { jobs, file, thread };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` on the namespace's thread: sockets and processes that it makes are in the namespace. Others may run there meanwhile.
    ///
    /// # Errors
    /// If the work panicked.
    pub async fn run<F, T>(&self, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            Box::pin(async move {
                // Nobody waits any more if the caller was dropped.
                let _ = tell.send(work().await);
            })
        });
        self.jobs.send(job).map_err(|_| anyhow!("the thread of the namespace has ended"))?;
        told.await.context("the work in the namespace panicked")
    }

    /// Runs `work`, which may block, on a thread of its own in the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, the work fails or panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
                work()
            });
            inside.join().map_err(|_| anyhow!("the work in the namespace panicked"))?
        })
    }

    /// Runs `ip` with these arguments, separated by spaces, and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.enter(|| {
            let output = Command::new("ip").args(arguments.split_whitespace()).output();
            let output = output.context("ip cannot be run: install iproute2")?;
            if !output.status.success() {
                bail!("`ip {arguments}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }
}

/// Moves this thread into a new network namespace; returns its file and the thread's number.
fn enter_new() -> Result<(File, i32)> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace, which needs root or a user namespace")?;
    let file = File::open("/proc/thread-self/ns/net").context("opening /proc/thread-self/ns/net")?;
    Ok((file, nix::unistd::gettid().as_raw()))
}

/// Whether this process may make network namespaces. Root may; others may in a user namespace, `unshare --user --map-root-user`.
#[must_use]
pub fn may_make_namespaces() -> bool {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false)
}

/// Replaces this process by one in a user namespace if it may not make network namespaces. `command` is what a person has run.
///
/// # Errors
/// If that does not help.
pub fn enter_user_namespace(command: &str) -> Result<()> {
    /// Set in the process that has been replaced, so that it is not replaced again.
    const ENTERED: &str = "PIXELL_IN_USER_NAMESPACE";
    if may_make_namespaces() {
        return Ok(());
    }
    if std::env::var_os(ENTERED).is_some() {
        bail!("this system lets nobody but root make network namespaces: run `{command}` as root");
    }
    let program = std::env::current_exe().context("finding this program")?;
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "--"]).arg(program).args(std::env::args_os().skip(1));
    let error = again.env(ENTERED, "1").exec();
    Err(error).context("unshare cannot be run: install util-linux, or run this as root")
}
