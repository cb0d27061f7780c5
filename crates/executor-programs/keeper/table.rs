//! A list in mapped memory, which grows and shrinks. There is no allocator.

#![expect(unsafe_code, reason = "memory that is mapped here")]

use core::slice;

use crate::sys::{self, Result};

const PAGE: usize = 4096;

/// A list of plain values.
pub struct Table<T: Copy> {
    at: *mut T,
    len: usize,
    /// Of the memory. Zero if there is none yet.
    bytes: usize,
}

impl<T: Copy> Table<T> {
    pub const fn new() -> Self {
        Self { at: core::ptr::null_mut(), len: 0, bytes: 0 }
    }

    pub fn as_slice(&self) -> &[T] {
        if self.at.is_null() {
            return &[];
        }
        // SAFETY: the first `len` values were written, and the memory stays until the list changes.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        if self.at.is_null() {
            return &mut [];
        }
        // SAFETY: the same, and nobody else has the list.
        unsafe { slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// Makes room for that many values in all.
    pub fn reserve(&mut self, count: usize) -> Result<()> {
        let wanted = count.checked_mul(size_of::<T>()).ok_or(sys::EINVAL)?;
        if wanted > self.bytes {
            self.resize(wanted.next_power_of_two().max(PAGE))?;
        }
        Ok(())
    }

    pub fn push(&mut self, value: T) -> Result<()> {
        self.reserve(self.len + 1)?;
        // SAFETY: there is room for it.
        unsafe { self.at.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Removes the value at an index. The order stays.
    pub fn remove(&mut self, index: usize) {
        if index < self.len {
            self.as_mut_slice().copy_within(index + 1.., index);
            self.len -= 1;
            self.shrink();
        }
    }

    /// Removes all but the values that `is_kept` chooses. The order stays.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        let all = self.as_mut_slice();
        for index in 0..all.len() {
            if all.get(index).is_some_and(&mut is_kept) {
                all.copy_within(index..=index, kept);
                kept += 1;
            }
        }
        self.len = kept;
        self.shrink();
    }

    /// Removes all values, and gives the memory back.
    pub fn clear(&mut self) {
        self.len = 0;
        if !self.at.is_null() {
            // SAFETY: the memory is this list's, and no reference to it is alive.
            unsafe { sys::unmap(self.at.cast(), self.bytes) };
        }
        (self.at, self.bytes) = (core::ptr::null_mut(), 0);
    }

    /// Gives memory back of which less than a quarter is used.
    fn shrink(&mut self) {
        let used = self.len * size_of::<T>();
        if self.bytes > PAGE && used * 4 < self.bytes {
            let _smaller = self.resize((used * 2).next_power_of_two().max(PAGE));
        }
    }

    fn resize(&mut self, bytes: usize) -> Result<()> {
        let at = match self.bytes {
            0 => sys::map(bytes)?,
            // SAFETY: the memory is this list's, and no reference to it is alive.
            before => unsafe { sys::remap(self.at.cast(), before, bytes)? },
        };
        (self.at, self.bytes) = (at.cast(), bytes);
        Ok(())
    }
}

impl Table<u8> {
    /// All of the memory, for bytes that come and go.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.len = self.bytes;
        self.as_mut_slice()
    }
}
