# Everything here is `cargo xtask`; `cargo xtask` alone says what each does.

demo:
    cargo xtask demo

test:
    cargo xtask test

check:
    cargo xtask check

fmt:
    cargo xtask fmt

doc:
    cargo xtask doc

examples:
    cargo xtask examples

guest:
    cargo xtask guest

model:
    cargo xtask model
