package host

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// markName is a variable of the environment that all have that a program starts, unless they take it away: so they are found also in a
// process group or a session of their own.
const markName = "GPROV_PROGRAM"

func newMark() string { return markName + "=" + rand.Text() }

// markRounds is how often the processes are looked through: some may start others meanwhile.
const markRounds = 100

// killMarked kills all processes that have a mark in the environment that they were started with (proc_pid_environ(5)).
func killMarked(mark string) {
	for range markRounds {
		names, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			return
		}
		found := false
		for _, name := range names {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err == nil && pid != os.Getpid() && killIfMarked(pid, name, mark) {
				found = true
			}
		}
		if !found {
			return
		}
	}
}

// killIfMarked reports whether a process had the mark. What is killed is the process that was looked at, whose number may be another's now.
func killIfMarked(pid int, environ, mark string) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	env, err := os.ReadFile(environ) // that of a process that has ended is empty
	if err != nil || !hasVariable(env, mark) {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// hasVariable reports whether an environment, whose variables end in zero bytes, has a variable with a value.
func hasVariable(env []byte, variable string) bool {
	return bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00"))
}
