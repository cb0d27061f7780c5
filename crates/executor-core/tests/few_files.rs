//! An executor that is built in a process without file descriptors: an error, and no panic.

use std::sync::atomic::{AtomicUsize, Ordering};

use executor_core::lifecycle::Cancel;
use executor_core::{ContainerSpec, Error, Executor};
use executor_sim::SimRuntime;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// This runtime needs no files itself: what fails is the executor's own thread.
#[test]
fn the_executors_thread_says_that_it_has_too_few_files() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        hook(panic);
    }));
    let plenty = getrlimit(Resource::Nofile);
    let (mut built, mut refused) = (0, 0);
    for limit in 3..40 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: plenty.maximum }).unwrap();
        let executor = Executor::builder(SimRuntime::new()).build();
        setrlimit(Resource::Nofile, plenty).unwrap();
        match executor {
            Ok(executor) => {
                let exit = futures::executor::block_on(async {
                    let exit = executor.run(ContainerSpec::host(["true"])).await.unwrap().wait().await;
                    executor.shutdown(Cancel::now(), std::time::Duration::from_secs(5)).await;
                    exit
                });
                assert!(exit.is_success(), "{limit}: {exit:?}");
                built += 1;
            }
            Err(Error::Thread(error)) => {
                assert!(error.to_string().contains("Too many open files"), "{limit}: {error}");
                refused += 1;
            }
            Err(error) => panic!("{limit}: {error:?}"),
        }
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{limit}");
    }
    assert!(built > 5 && refused > 5, "{built} built, {refused} refused");
}
