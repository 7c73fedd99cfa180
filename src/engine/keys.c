/* Masking keys (RFC 6455 section 5.3).

   Lives here: where a client's keys come from. Must never live here: what is masked with them.

   The theory. A key must come "from a strong source of entropy" and must not be foreseeable from
   the ones before it, or a script that chooses the payload chooses what proxies see (section 10.3).
   So all of them are the operating system's, from `os.urandom`; many at a time, because a call for
   four bytes costs more than all the rest of a small frame. Each is handed out once and wiped. A
   fork leaves the child its parent's pool, so a pool is good only in the process that drew it. To
   ask for the process's id would cost as much as is saved: forks are counted. */

#include "engine.h"

#ifndef _WIN32
#include <pthread.h>
#endif

static volatile unsigned process; /* forks between the first process and this one */

#ifndef _WIN32
static void
forked(void)
{
    process++;
}
#endif

/* Once for each time that the module is made: counting one fork twice does no harm. */
int
keys_init(void)
{
#ifndef _WIN32
    if (pthread_atfork(NULL, NULL, forked) != 0) {
        PyErr_NoMemory();
        return -1;
    }
#endif
    return 0;
}

static int
refill(State *st)
{
    PyObject *bytes = NULL;
    unsigned drawn_in;
    do { /* a signal's handler may run while bytes are drawn, and fork */
        drawn_in = process;
        Py_XSETREF(bytes, PyObject_CallFunctionObjArgs(st->urandom, st->pool_size, NULL));
        if (bytes == NULL) {
            return -1;
        }
    } while (drawn_in != process);
    if (!PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != (Py_ssize_t)sizeof(st->keys)) {
        Py_DECREF(bytes);
        PyErr_SetString(PyExc_RuntimeError, "os.urandom did not return as many bytes as asked");
        return -1;
    }
    memcpy(st->keys, bytes_of(bytes), sizeof(st->keys));
    st->keys_left = KEYS;
    st->keys_process = drawn_in;
    Py_DECREF(bytes);
    return 0;
}

/* A key that nobody else has or had; -1 with an exception. Other threads run while `refill` asks,
   and may refill, too; from its return to ours none does. */
int
draw_key(Engine *self, uint8_t key[4])
{
    State *st = state_of(self);
    if ((st->keys_left == 0 || st->keys_process != process) && refill(st) < 0) {
        return -1;
    }
    uint8_t *drawn = st->keys[--st->keys_left];
    memcpy(key, drawn, 4);
    memset(drawn, 0, 4);
    return 0;
}
