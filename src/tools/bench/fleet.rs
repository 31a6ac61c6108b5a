//! The client processes as the parent sees them.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{self, Child, ChildStdin, ChildStdout, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    CLIENT_COMMAND,
    error::BenchError,
    messages::{ClientResult, ClientTask, Command, Line, Progress},
    observe,
};

/// A stop or continue takes effect within microseconds; a machine at its limits may take longer.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(10);

/// Stack of a thread that only passes lines on.
const STACK_BYTES: usize = 128 * 1024;

/// All client processes of a run. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Fleet {
    clients: Vec<Client>,
    lines: Receiver<(usize, Option<Line>)>,
}

#[derive(Debug)]
struct Client {
    child: Child,
    commands: ChildStdin,
    progress: Progress,
    result: Option<ClientResult>,
}

impl Fleet {
    /// Starts one process per task.
    pub fn start(tasks: &[ClientTask]) -> Result<Self, BenchError> {
        let (sender, lines) = mpsc::channel();
        let mut fleet = Self { clients: Vec::with_capacity(tasks.len()), lines };
        for (index, task) in tasks.iter().enumerate() {
            fleet.start_one(index, task, sender.clone()).map_err(BenchError::Client)?;
        }
        Ok(fleet)
    }

    fn start_one(
        &mut self,
        index: usize,
        task: &ClientTask,
        lines: Sender<(usize, Option<Line>)>,
    ) -> io::Result<()> {
        let mut child = process::Command::new(std::env::current_exe()?)
            .arg(CLIENT_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(mut commands), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked to be pipes");
        };
        let written = write_line(&mut commands, task);
        let (progress, result) = (Progress::default(), None);
        self.clients.push(Client { child, commands, progress, result });
        written?;
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || pass_on(index, output, &lines))?;
        Ok(())
    }

    /// How many processes.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// The progress of all of them together.
    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        self.clients.iter().for_each(|client| sum += client.progress);
        sum
    }

    /// Takes in what they say for this long.
    pub fn listen(&mut self, time: Duration) -> Result<(), BenchError> {
        let until = Instant::now() + time;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((index, Some(Line::Progress(progress)))) => {
                    self.clients[index].progress = progress;
                }
                Ok((index, Some(Line::Result(result)))) => {
                    self.clients[index].result = Some(*result);
                }
                Ok((index, None)) if self.clients[index].result.is_none() => {
                    return Err(BenchError::ClientGone(index));
                }
                Ok((_, None)) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                // All have ended: there is nothing to wait for.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Sends a command to all of them.
    pub fn command(&mut self, command: Command) -> Result<(), BenchError> {
        for client in &mut self.clients {
            write_line(&mut client.commands, &command).map_err(BenchError::Client)?;
        }
        Ok(())
    }

    /// Ends the run and collects what each has seen.
    pub fn finish(mut self, published: u64) -> Result<Vec<ClientResult>, BenchError> {
        self.command(Command::Finish { published })?;
        while self.clients.iter().any(|client| client.result.is_none()) {
            self.listen(Duration::from_millis(20))?;
        }
        for client in &mut self.clients {
            client.child.wait().map_err(BenchError::Client)?;
        }
        Ok(self.clients.iter_mut().filter_map(|client| client.result.take()).collect())
    }

    /// Stops all of them (SIGSTOP), and waits until they have stopped.
    pub fn stop(&self) -> Result<(), BenchError> {
        self.signal(Signal::STOP)?;
        let until = Instant::now() + SIGNAL_PATIENCE;
        for client in &self.clients {
            while observe::state(client.child.id()).map_err(BenchError::Signal)? != 'T' {
                if Instant::now() > until {
                    return Err(BenchError::Signal(io::ErrorKind::TimedOut.into()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    pub fn go_on(&self) -> Result<(), BenchError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        for client in &self.clients {
            kill_process(Pid::from_child(&client.child), signal)
                .map_err(|error| BenchError::Signal(error.into()))?;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // Both do nothing to a process that has been waited for.
            let _ = client.child.kill();
            let _ = client.child.wait();
        }
    }
}

fn write_line(commands: &mut ChildStdin, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    commands.write_all(&line)
}

/// Passes a client's lines on, then `None`.
fn pass_on(index: usize, output: ChildStdout, lines: &Sender<(usize, Option<Line>)>) {
    let parsed = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .map_while(|line| serde_json::from_str(&line).ok());
    // The parent may have ended.
    for line in parsed {
        if lines.send((index, Some(line))).is_err() {
            return;
        }
    }
    let _ = lines.send((index, None));
}
