//! The shortest way to a program's output.
//!
//! `cargo run --example hello` runs it on the simulator, `cargo run --example hello -- --real` on runc.

use longshore::{ContainerSpec, Error};

fn main() -> Result<(), Error> {
    longshore_examples::run(async |executor| {
        let spec = ContainerSpec::host(["sh", "-c", "echo hello from a container; exit 3"]).piped();
        let container = executor.run(spec).await?;
        let pid = container.started().await?;
        let output = container.output().await?;

        print!("{}", output.stdout_lossy());
        println!("on the host it was pid {pid}: {}", output.exit);
        Ok(())
    })
}
