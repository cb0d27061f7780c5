//! A scheduler: an actix actor of yours around a policy with priorities and a capacity. To make room for a more important
//! job, a less important one is cancelled, with grace, and runs again later.

mod job;
mod policy;

use std::{collections::HashMap, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler};
use job::{Job, JobMessage, Size};
use longshore::{Error, Executor, Exit};
use policy::{Order, Policy};
use tokio::{sync::mpsc, sync::oneshot, time::Instant};

const CAPACITY: Size = (4, 512);
const JOBS: u32 = 40;

struct Scheduler {
    executor: Executor,
    policy: Policy,
    preempt: HashMap<u32, oneshot::Sender<()>>,
    report: mpsc::UnboundedSender<(Job, Result<Exit, Error>, Size)>,
}

impl Actor for Scheduler {
    type Context = Context<Self>;
}

impl Handler<JobMessage> for Scheduler {
    type Result = ();

    fn handle(&mut self, message: JobMessage, context: &mut Context<Self>) {
        match message {
            JobMessage::Submit(job) => self.policy.submit(job),
            JobMessage::Ended(job, exit) => {
                self.policy.ended(job, exit.as_ref().is_ok_and(|exit| !exit.is_success()));
                drop(self.report.send((job, exit, self.policy.peak)));
            }
        }
        while let Some(order) = self.policy.next() {
            match order {
                Order::Preempt(job) => drop(self.preempt.remove(&job.number)),
                Order::Start(job) => {
                    let (preempt, preempted) = oneshot::channel();
                    self.preempt.insert(job.number, preempt);
                    let (executor, scheduler) = (self.executor.clone(), context.address());
                    actix::spawn(async move {
                        scheduler.do_send(JobMessage::Ended(job, job.run(&executor, preempted).await));
                    });
                }
            }
        }
    }
}

fn main() -> Result<(), Error> {
    longshore_examples::run(async |executor| {
        let (began, (report, mut reports)) = (Instant::now(), mpsc::unbounded_channel());
        let (executor, policy, preempt) = (executor.clone(), Policy::new(CAPACITY), HashMap::new());
        let scheduler = Scheduler { executor, policy, preempt, report }.start();
        for number in 0..JOBS {
            let size = (1 + number % 3, 32 << (number % 4));
            scheduler.do_send(JobMessage::Submit(Job { rank: number * 7 % 5, number, size }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("     when  rank  job  CPUs  MiB  end");
        let (mut done, mut most) = (0, (0, 0));
        while done < JOBS
            && let Some((job, exit, peak)) = reports.recv().await
        {
            let exit = exit?;
            println!("{:>5} ms  {job}  {exit}", began.elapsed().as_millis());
            done += u32::from(exit.is_success());
            most = peak;
        }
        println!("{done} jobs done; at most {most:?} of {CAPACITY:?} CPUs and MiB were in use");
        Ok(())
    })
}
