//! The C side: a VFS whose files wrap those of SQLite's `unix` VFS.
//! All `unsafe` of this package is here; it decides nothing and hands each call to `recorder.rs`.
//!
//! ```text
//!   allocated by SQLite, szOsFile bytes:  | ShimFile            | the unix VFS's file |
//!                                         ^ what SQLite sees    ^ what `real` returns
//! ```
//!
//! What every function relies on, from SQLite's contract for `sqlite3_vfs` and
//! `sqlite3_io_methods`:
//! - pointers to files, names and buffers are valid for the call, buffers for the given length;
//! - a file's methods are called only between a successful `xOpen` and the end of its
//!   `xClose`, by one thread at a time;
//! - the `unix` VFS is never unregistered, so pointers to it stay valid.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::recorder::{Recorder, Tracked};

/// Makes finding a name free and taking it one step; SQLite links its VFSs through `pNext`,
/// which is copied in between.
static REGISTER: Mutex<()> = Mutex::new(());

/// A VFS under a name, until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    name: String,
    vfs: NonNull<sqlite3_vfs>,
}

// SAFETY: the pointer is only ever handed to sqlite3_vfs_unregister, which locks.
unsafe impl Send for Registration {}
// SAFETY: as above; nothing is read or written through a shared reference.
unsafe impl Sync for Registration {}

/// What `pAppData` of our VFS points to. Never freed, like the VFS itself: a connection keeps
/// the pointer for as long as it lives.
struct AppData {
    real: NonNull<sqlite3_vfs>,
    recorder: Weak<Recorder>,
}

#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    recorder: Arc<Recorder>,
    file: Tracked,
    /// The next successful sync takes the directory along, as the `unix` VFS does once for
    /// each handle on a journal or WAL that was allowed to create it.
    sync_dir: Cell<bool>,
}

/// Where the wrapped file begins. SQLite aligns files to 8 bytes.
const REAL_OFFSET: usize = size_of::<ShimFile>();
const _: () = assert!(align_of::<ShimFile>() == 8 && REAL_OFFSET.is_multiple_of(8));

/// Version 2: shared memory for WAL, no `xFetch`, so that every read goes through `xRead`.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl Registration {
    pub(crate) fn new(name: &str, recorder: &Arc<Recorder>) -> io::Result<Self> {
        let c_name = CString::new(name)?;
        let _guard = REGISTER.lock().unwrap_or_else(PoisonError::into_inner);
        if find(&c_name).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("a VFS named {name:?} is registered"),
            ));
        }
        let real = find(c"unix").ok_or_else(|| io::Error::other("SQLite has no unix VFS"))?;
        let app = Box::new(AppData { real, recorder: Arc::downgrade(recorder) });
        // SAFETY: `real` is valid, and with the lock held nobody changes its `pNext`.
        let base = unsafe { *real.as_ptr() };
        let shim_size = c_int::try_from(REAL_OFFSET).expect("a small struct");
        // All other methods stay those of the unix VFS, which use no part of the VFS they
        // are called with.
        let vfs = Box::new(sqlite3_vfs {
            szOsFile: shim_size + base.szOsFile,
            pNext: ptr::null_mut(),
            zName: c_name.into_raw(),
            pAppData: Box::into_raw(app).cast(),
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            ..base
        });
        let vfs = NonNull::from(Box::leak(vfs));
        // SAFETY: the VFS and all it points to are leaked, so valid for ever.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs.as_ptr(), 0) };
        if code != ffi::SQLITE_OK {
            return Err(io::Error::other(format!(
                "registering VFS {name:?}: SQLite result code {code}"
            )));
        }
        Ok(Self { name: name.to_owned(), vfs })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _guard = REGISTER.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the VFS was registered, and is not freed.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs.as_ptr()) };
    }
}

fn find(name: &CStr) -> Option<NonNull<sqlite3_vfs>> {
    // SAFETY: the name ends in NUL; SQLite initializes itself.
    NonNull::new(unsafe { ffi::sqlite3_vfs_find(name.as_ptr()) })
}

/// # Safety
/// `vfs` is one of ours.
unsafe fn app<'a>(vfs: *mut sqlite3_vfs) -> &'a AppData {
    // SAFETY: `Registration::new` set it, and it is never freed.
    unsafe { &*(*vfs).pAppData.cast::<AppData>() }
}

/// # Safety
/// `file` is an open file of ours.
unsafe fn shim<'a>(file: *mut sqlite3_file) -> &'a ShimFile {
    // SAFETY: `x_open` wrote a `ShimFile` there; it is only ever shared until `x_close`.
    unsafe { &*file.cast::<ShimFile>() }
}

/// # Safety
/// `file` points to `szOsFile` bytes of our VFS.
unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the wrapped file lies in the same allocation.
    unsafe { file.byte_add(REAL_OFFSET) }
}

/// # Safety
/// `name` is null or ends in NUL.
unsafe fn tracked_name(recorder: &Recorder, name: *const c_char) -> Option<Arc<str>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: not null.
    let name = unsafe { CStr::from_ptr(name) };
    recorder.name_of(Path::new(OsStr::from_bytes(name.to_bytes())))
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    out: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite opens through our VFS and gives room for our file; methods must be null
    // when opening fails.
    let (app, real_file) = unsafe {
        (*out).pMethods = ptr::null();
        (app(vfs), real(out))
    };
    let open_real = |file: *mut sqlite3_file| {
        // SAFETY: the arguments are SQLite's own, with room for a file of the real VFS.
        unsafe {
            (*file).pMethods = ptr::null();
            match (*app.real.as_ptr()).xOpen {
                Some(open) => open(app.real.as_ptr(), name, file, flags, out_flags),
                None => ffi::SQLITE_CANTOPEN,
            }
        }
    };
    let Some(recorder) = app.recorder.upgrade() else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: the name is SQLite's.
    let tracked = unsafe { tracked_name(&recorder, name) };
    let Some(tracked) = tracked.filter(|_| flags & ffi::SQLITE_OPEN_DELETEONCLOSE == 0) else {
        // Temporary files and those elsewhere: not ours, wrapped by nothing.
        return open_real(out);
    };
    let may_create = flags & ffi::SQLITE_OPEN_CREATE != 0;
    let journals =
        ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let file = match recorder.open(tracked, may_create, || open_real(real_file)) {
        Ok(file) => file,
        Err(code) => return code,
    };
    let shim = ShimFile {
        base: sqlite3_file { pMethods: &METHODS },
        recorder,
        file,
        sync_dir: Cell::new(may_create && flags & journals != 0),
    };
    // SAFETY: there is room for it before the wrapped file, and nothing in its place.
    unsafe { out.cast::<ShimFile>().write(shim) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_delete(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    // SAFETY: SQLite deletes through our VFS.
    let app = unsafe { app(vfs) };
    let delete_real = |sync_dir: c_int| {
        // SAFETY: the arguments are SQLite's own.
        unsafe {
            match (*app.real.as_ptr()).xDelete {
                Some(delete) => delete(app.real.as_ptr(), name, sync_dir),
                None => ffi::SQLITE_IOERR_DELETE,
            }
        }
    };
    let Some(recorder) = app.recorder.upgrade() else {
        return delete_real(sync_dir);
    };
    // SAFETY: the name is SQLite's.
    match unsafe { tracked_name(&recorder, name) } {
        // No real sync, as in `x_sync`.
        Some(name) => recorder.delete(&name, sync_dir & 1 != 0, || delete_real(0)),
        None => delete_real(sync_dir),
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open, and not used again after this.
    unsafe {
        let real = real(file);
        let code = match (*real).pMethods.as_ref().and_then(|m| m.xClose) {
            Some(close) => close(real),
            None => ffi::SQLITE_OK,
        };
        file.cast::<ShimFile>().drop_in_place();
        (*file).pMethods = ptr::null();
        code
    }
}

unsafe extern "C" fn x_read(
    file: *mut sqlite3_file,
    buf: *mut c_void,
    len: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open.
    let shim = unsafe { shim(file) };
    let (Ok(at), Ok(size)) = (u64::try_from(offset), usize::try_from(len)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    shim.recorder.read(&shim.file, at, size, || {
        // SAFETY: the arguments are SQLite's own.
        unsafe {
            let real = real(file);
            match (*(*real).pMethods).xRead {
                Some(read) => read(real, buf, len, offset),
                None => ffi::SQLITE_IOERR_READ,
            }
        }
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    buf: *const c_void,
    len: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open.
    let shim = unsafe { shim(file) };
    let (Ok(at), Ok(size)) = (u64::try_from(offset), usize::try_from(len)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite gives as many bytes as it says.
    let data = unsafe { slice::from_raw_parts(buf.cast::<u8>(), size) };
    shim.recorder.write(&shim.file, at, data, |data| {
        // No longer than what SQLite gave, so it fits.
        let Ok(len) = c_int::try_from(data.len()) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        // SAFETY: `data` is valid for its length.
        unsafe {
            let real = real(file);
            match (*(*real).pMethods).xWrite {
                Some(write) => write(real, data.as_ptr().cast(), len, offset),
                None => ffi::SQLITE_IOERR_WRITE,
            }
        }
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, len: sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    let shim = unsafe { shim(file) };
    let Ok(size) = u64::try_from(len) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    shim.recorder.truncate(&shim.file, size, || {
        // SAFETY: the arguments are SQLite's own.
        unsafe {
            let real = real(file);
            match (*(*real).pMethods).xTruncate {
                Some(truncate) => truncate(real, len),
                None => ffi::SQLITE_IOERR_TRUNCATE,
            }
        }
    })
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let shim = unsafe { shim(file) };
    let code = shim.recorder.sync(&shim.file, shim.sync_dir.get());
    if code == ffi::SQLITE_OK {
        shim.sync_dir.set(false);
    }
    code
}

unsafe extern "C" fn x_file_control(file: *mut sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    if op == ffi::SQLITE_FCNTL_SIZE_HINT {
        // The unix VFS may grow the file on this hint, which nobody would have seen.
        return ffi::SQLITE_OK;
    }
    // SAFETY: the arguments are SQLite's own.
    unsafe {
        let real = real(file);
        match (*(*real).pMethods).xFileControl {
            Some(control) => control(real, op, arg),
            None => ffi::SQLITE_NOTFOUND,
        }
    }
}

unsafe extern "C" fn x_shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: the file is open.
    unsafe {
        let real = real(file);
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

/// Methods that go straight to the wrapped file.
macro_rules! forward {
    ($($name:ident => $method:ident($($arg:ident: $type:ty),*) or $missing:expr;)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $arg: $type)*) -> c_int {
            // SAFETY: the arguments are SQLite's own.
            unsafe {
                let real = real(file);
                match (*(*real).pMethods).$method {
                    Some(method) => method(real $(, $arg)*),
                    None => $missing,
                }
            }
        }
    )*};
}

forward! {
    x_file_size => xFileSize(size: *mut sqlite3_int64) or ffi::SQLITE_IOERR_FSTAT;
    x_lock => xLock(level: c_int) or ffi::SQLITE_IOERR_LOCK;
    x_unlock => xUnlock(level: c_int) or ffi::SQLITE_IOERR_UNLOCK;
    x_check_reserved_lock => xCheckReservedLock(out: *mut c_int) or ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    x_sector_size => xSectorSize() or 0;
    x_device_characteristics => xDeviceCharacteristics() or 0;
    x_shm_map => xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) or ffi::SQLITE_IOERR_SHMMAP;
    x_shm_lock => xShmLock(offset: c_int, n: c_int, flags: c_int) or ffi::SQLITE_IOERR_SHMLOCK;
    x_shm_unmap => xShmUnmap(delete: c_int) or ffi::SQLITE_OK;
}
