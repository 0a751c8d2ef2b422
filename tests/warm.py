"""Python programs that start at once. A process has imported what most of them need, and forks for each: none imports
torch again.

`warm(*args)` does what `subprocess.run([sys.executable, *args])` does: a process of its own, with its own arguments,
directory, environment and files, for `SCRIPT`, `-m MODULE` and `-c CODE`; `warm.begin(*args)` does not wait for it.
What is about starting itself (what is imported, in which encoding) takes a fresh Python.

`forked(command, …)` does what `Popen` does for a Python program, by a fork of the process that asks; `run_forked` what
`subprocess.run` does. So begin the kernels of a program that is run with `kernels=True`; those of every other are fresh
ones.
"""
import asyncio
import atexit
import contextvars
import faulthandler
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from concurrent.futures import thread as futures
from pathlib import Path

HERE = Path(__file__).resolve()
NEEDED = ('mpfnet.cli', 'mpfnet.paper', 'mpfnet.paper.explain', 'sklearn.manifold', 'papermill.cli', 'nbclient',
          'ipykernel.kernelapp', 'torch._dynamo')


class Warm:
    "The waiting process; it starts when it is first asked for something."
    process = None

    def start(self):
        self.process = subprocess.Popen([sys.executable, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.end)

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def told(self, timeout=None):
        "The next line of the waiting process; None if it takes longer than that."
        if not select.select([self.process.stdout], [], [], timeout)[0]: return None
        return int(self.process.stdout.readline())

    def send(self, args, cwd, env, files, kernels=False):
        "Have a program run, with files for its input, output and errors; its pid, which is its group, too."
        if not self.process: self.start()
        request = dict(args=[*map(str, args)], cwd=str(cwd or os.getcwd()),
                       env=dict(os.environ if env is None else env), files=[*map(str, files)], kernels=kernels)
        self.process.stdin.write(json.dumps(request).encode() + b'\n')
        self.process.stdin.flush()
        return self.told()

    def __call__(self, *args, cwd=None, env=None, text=True, timeout=300, input='', kernels=False):
        "Run a program; a CompletedProcess. With `kernels`, those that it begins are forks, too; they begin no others."
        args = [*map(str, args)]
        if not hasattr(os, 'fork'):
            more = dict(input=input if text else input.encode()) | (dict(text=True, encoding='utf-8') if text else {})
            return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, timeout=timeout,
                                  **more)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder)/name for name in ('in', 'out', 'err')]
            files[0].write_text(input, encoding='utf-8')
            pid, status = self.send(args, cwd, env, files, kernels), self.told(timeout)
            if status is None:
                os.killpg(pid, signal.SIGKILL)
                self.told()
                raise subprocess.TimeoutExpired(args, timeout)
            out, err = (f.read_bytes() for f in files[1:])
        if text: out, err = (s.decode('utf-8') for s in (out, err))
        return subprocess.CompletedProcess(args, status, out, err)

    def begin(self, *args, cwd=None, env=None, kernels=False):
        "Begin a program that is to be killed: what `Popen` in a session of its own returns, without its output."
        if not hasattr(os, 'fork'):
            return subprocess.Popen([sys.executable, *map(str, args)], cwd=cwd, env=env, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL, start_new_session=True)
        return Begun(self, self.send(args, cwd, env, [os.devnull]*3, kernels))


class Begun:
    "A program that runs. Until it has ended, no other is begun."
    returncode = None
    def __init__(self, waiting, pid): self.waiting, self.pid = waiting, pid
    def poll(self): return self.wait(0)
    def wait(self, timeout=60):
        if self.returncode is None: self.returncode = self.waiting.told(timeout)
        return self.returncode


warm = Warm()


class Forked:
    "A program that runs in a fork of this process; as much of a `Popen` as those that begin one ask of it."
    returncode = stdin = stdout = stderr = None
    def __init__(self, pid): self.pid = pid
    def send_signal(self, number): os.kill(self.pid, number)
    def terminate(self): self.send_signal(signal.SIGTERM)
    def kill(self): self.send_signal(signal.SIGKILL)
    def poll(self):
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode
    def wait(self, timeout=float('inf')):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end: raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(.01)
        return self.returncode


def forget():
    "What the forked process was about: what it does and waits for when it ends, its loop of events, its signals."
    atexit._clear()
    futures._threads_queues.clear()         # this thread may be one of a pool, and would wait for itself
    faulthandler.disable()                  # pytest's: it would print a stack among the dots
    asyncio.set_event_loop_policy(None)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def forked(command, stdin=None, stdout=None, stderr=None, cwd=None, env=None, text=True, start_new_session=True,
           preexec_fn=None):
    "`Popen` of `[python, *args]`, without a Python that starts: it has imported what this process has."
    ends, (ready, begun) = os.pipe() if stdin == subprocess.PIPE else (), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if not (pid := os.fork()):
        try:
            forget()
            if ends: os.close(ends[1])
            if preexec_fn: preexec_fn()
            out = stdout.fileno() if stdout else 1
            files = [ends[0] if ends else 0, out, out if stderr == subprocess.STDOUT else 2]
            what = become(command[1:], cwd or os.getcwd(), os.environ if env is None else env, files,
                          session=start_new_session)
            os.close(begun)
            contextvars.Context().run(run_and_leave, *what)
        finally: os._exit(1)
    os.close(begun)
    os.read(ready, 1)                                              # until it has a group of its own
    os.close(ready)
    process = Forked(pid)
    if ends:
        os.close(ends[0])
        process.stdin = os.fdopen(ends[1], 'w')
    return process


def run_forked(command, stdin=None, **how):
    "`subprocess.run` of the same, in the session of the process that asks; there is nothing to read."
    return subprocess.CompletedProcess(command, forked(command, start_new_session=False, **how).wait())


# --- in the waiting process, and in forks ---

def wait_for_requests():
    "Fork for each request, say its pid and then its status; returns in the fork, with what is asked for."
    for line in sys.stdin.buffer:
        if not (pid := os.fork()): return json.loads(line)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


def become(args, cwd, env, files, kernels=False, session=True):
    "Make this process look like one that was started so, with files that are named or open; what it has to run."
    if session: os.setsid()
    if kernels: sys.modules['jupyter_client.launcher'].Popen = forked
    env, modes = dict(env), (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    opened = [f if isinstance(f, int) else os.open(f, mode) for f, mode in zip(files, modes)]
    for k, file in enumerate(opened): os.dup2(file, k)
    for file in {*opened} - {0, 1, 2}: os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        open(k, 'rw'[k > 0], encoding='utf-8', errors=('strict', 'strict', 'backslashreplace')[k], closefd=False)
        for k in range(3)
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    ours = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    kind, what = (args[0], args[1]) if args[0] in ('-c', '-m') else ('', args[0])
    if what == 'ipykernel_launcher' and 'JPY_PARENT_PID' in env:       # a kernel has read it when it was imported
        args = [*args, f'--IPKernelApp.parent_handle={env["JPY_PARENT_PID"]}']
    sys.argv = [kind or what, *args[2 if kind else 1:]]
    first = {'-c': '', '-m': cwd}.get(kind, str(Path(what).resolve().parent))
    theirs = env.get('PYTHONPATH', '').split(os.pathsep)
    sys.path[:] = [first, *filter(None, theirs), *(p for p in sys.path[1:] if p not in ours)]
    return kind, what


def run_it(kind, what):
    if kind == '-m': runpy.run_module(what, run_name='__main__', alter_sys=True)
    elif not kind: runpy.run_path(what, run_name='__main__')
    else:
        sys.modules['__main__'] = main = types.ModuleType('__main__')
        exec(compile(what, '<string>', 'exec'), main.__dict__)


def run_and_leave(kind, what):
    "Run it, and end as Python does, but without taking all modules apart: that would take longer than most programs."
    status = 0
    try: run_it(kind, what)
    except SystemExit as e:
        if isinstance(e.code, str): print(e.code, file=sys.stderr)
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 255)


if __name__ == '__main__':
    for name in NEEDED: __import__(name)
    gc.freeze()                                        # a fork copies what it touches
    run_and_leave(*become(**wait_for_requests()))
