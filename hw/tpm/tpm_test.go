package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
)

// emulated is a TPM 2.0 of swtpm.
type emulated struct {
	t    *testing.T
	home string // its memory
	sys  string // its directory in sysfs
	conn net.Conn
	stop func() error // ends the process
	// hear changes what is sent and answered. A command that it answers itself does not reach the TPM.
	hear func(command uint32) (answer []byte)
}

// start starts one. It is stopped at the end of the test.
func start(t *testing.T) *emulated {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	e := &emulated{t: t, home: t.TempDir(), sys: t.TempDir()}
	e.file("tpm_version_major", "2\n")
	e.power()
	return e
}

// power starts the emulator, with what the one before remembers, after that has ended.
func (e *emulated) power() {
	e.t.Helper()
	if e.stop != nil {
		if err := e.stop(); err != nil {
			e.t.Fatal(err)
		}
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	own, other := os.NewFile(uintptr(pair[0]), "tpm"), os.NewFile(uintptr(pair[1]), "tpm")
	if e.conn, err = net.FileConn(own); err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--fd", "3", "--tpmstate", "dir="+e.home, "--flags", "not-need-init,startup-clear")
	cmd.ExtraFiles = []*os.File{other}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := errors.Join(own.Close(), cmd.Start(), other.Close()); err != nil {
		e.t.Fatal(err)
	}
	e.stop = sync.OnceValue(func() error {
		err := e.conn.Close() // the process ends with its connection
		if werr := cmd.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("swtpm: %w: %s", werr, said.Bytes()))
		}
		return err
	})
	e.t.Cleanup(func() {
		if err := e.stop(); err != nil {
			e.t.Error(err)
		}
	})
}

// file writes a file of sysfs.
func (e *emulated) file(name, content string) {
	e.t.Helper()
	name = filepath.Join(e.sys, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		e.t.Fatal(err)
	}
}

// port is an open emulator. What hear answers is read before what the TPM says.
type port struct {
	e      *emulated
	answer []byte
}

func (p *port) Write(b []byte) (int, error) {
	if hear := p.e.hear; hear != nil {
		if p.answer = hear(binary.BigEndian.Uint32(b[6:])); p.answer != nil {
			return len(b), nil
		}
	}
	return p.e.conn.Write(b)
}

func (p *port) Read(b []byte) (int, error) {
	if len(p.answer) > 0 {
		n := copy(b, p.answer)
		p.answer = p.answer[n:]
		return n, nil
	}
	return p.e.conn.Read(b)
}

func (p *port) Close() error { return nil }

func (e *emulated) tpm() *TPM {
	return New(e.sys, func() (io.ReadWriteCloser, error) { return &port{e: e}, nil })
}

// send sends a command whose first handle is used by its empty password.
func (e *emulated) send(code uint32, params []byte, handles ...uint32) []byte {
	e.t.Helper()
	b, err := session{&port{e: e}}.do(code, handles, params)
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func (e *emulated) look() Facts {
	e.t.Helper()
	f, err := e.tpm().Look()
	if err != nil {
		e.t.Fatal(err)
	}
	return f
}

// password gives a hierarchy one.
func (e *emulated) password(hierarchy uint32) {
	e.t.Helper()
	const change = 0x129
	e.send(change, append([]byte{0, 6}, "secret"...), hierarchy)
}

// code returns an answer that is nothing but a response code.
func code(rc uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, rc)
}

// ready is what the kernel shows of a firmware that takes requests.
func (e *emulated) ready(operations string) {
	e.t.Helper()
	e.file("ppi/tcg_operations", operations)
	e.file("ppi/request", "0\n")
}

// TestClear: what was kept is gone afterwards, another seed is seen, and a restart of the machine does not look like that.
func TestClear(t *testing.T) {
	e := start(t)
	for range 2 {
		e.power()
	}
	before := e.look()
	b := e.send(ccCreatePrimary, template(), rhOwner)
	const evict, at = 0x120, firstPersistent + 1
	e.send(evict, binary.BigEndian.AppendUint32(nil, at), rhOwner, binary.BigEndian.Uint32(b))
	e.send(ccFlushContext, b[:4])
	full := e.look()
	if before.Maker != "IBM" || before.Resets < 2 || len(before.Key) != 32 || len(before.Persistent) != 0 ||
		!bytes.Equal(full.Key, before.Key) || !slices.Equal(full.Persistent, []uint32{at}) ||
		before.Owner || before.Endorsement || before.Lockout {
		t.Fatalf("%+v, then %+v", before, full)
	}
	e.power()
	if f := e.look(); f.Resets <= full.Resets || !bytes.Equal(f.Key, full.Key) || len(f.Persistent) != 1 {
		t.Errorf("after a restart: %+v", f)
	}
	e.password(rhOwner)
	if f := e.look(); !f.Owner || f.Key != nil {
		t.Errorf("with a password: %+v", f)
	}
	if err := e.tpm().Clear(); err != nil {
		t.Fatal(err)
	}
	if f := e.look(); f.Resets != 0 || len(f.Key) != 32 || bytes.Equal(f.Key, before.Key) || f.Owner || len(f.Persistent) != 0 {
		t.Errorf("after it was cleared: %+v", f)
	}
}

// TestRefused: what keeps a TPM from being cleared is said, and nothing is changed.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*emulated)
		want   error
	}{
		"password": {func(e *emulated) { e.password(rhLockout) }, ErrPassword},
		"disabled": {func(e *emulated) { e.send(0x127, []byte{1}, rhLockout) }, Code(0x120)}, // TPM2_ClearControl
		"lockout":  {func(e *emulated) { e.hear = only(ccClear, code(0x921)) }, Code(0x921)},
		"failure mode": {func(e *emulated) {
			e.hear = func(uint32) []byte { return code(0x101) }
		}, Code(0x101)},
		"TPM 1.2": {func(e *emulated) { e.file("tpm_version_major", "1\n") }, ErrOld},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			before := e.look()
			c.change(e)
			if err := e.tpm().Clear(); !errors.Is(err, c.want) {
				t.Errorf("clear: %v", err)
			}
			if _, err := e.tpm().Look(); name == "failure mode" && !errors.Is(err, c.want) || name == "TPM 1.2" && !errors.Is(err, ErrOld) {
				t.Errorf("look: %v", err)
			}
			e.hear = nil
			e.file("tpm_version_major", "2\n")
			if f := e.look(); !bytes.Equal(f.Key, before.Key) {
				t.Error("it was cleared")
			}
		})
	}
}

// only answers one command.
func only(command uint32, answer []byte) func(uint32) []byte {
	return func(c uint32) []byte {
		if c == command {
			return answer
		}
		return nil
	}
}

// TestLiar: a TPM that says that it was cleared, and was not, shows the same seed; one that makes another key each time shows none.
func TestLiar(t *testing.T) {
	e := start(t)
	before := e.look()
	e.hear = only(ccClear, code(0))
	if err := e.tpm().Clear(); err != nil {
		t.Fatal(err)
	}
	if f := e.look(); !bytes.Equal(f.Key, before.Key) {
		t.Error("another key")
	}
	e.hear = nil
	real := e.send(ccCreatePrimary, template(), rhOwner)
	e.send(ccFlushContext, real[:4])
	n := byte(0)
	e.hear = func(command uint32) []byte {
		switch command {
		case ccCreatePrimary:
			n++
			b := slices.Concat(code(0), real)
			b[5], b[4] = byte(len(b)), byte(len(b)>>8)
			b[len(code(0))+40] = n
			return b
		case ccFlushContext:
			return code(0)
		}
		return nil
	}
	if f := e.look(); f.Key != nil || n != 2 {
		t.Errorf("made %d keys: %+v", n, f)
	}
}

// TestRequest: the firmware is asked only where it says that it takes the request, and that is believed only if it is seen there.
func TestRequest(t *testing.T) {
	const all = "1 4: User not required\n5 3: User required\n22 4: User not required\n"
	for name, c := range map[string]struct {
		operations, major string
		says, request     string
		want              error
	}{
		"TPM 2.0":         {all, "2", "User required", "5", nil},
		"nobody needed":   {"5 4: User not required\n", "2", "User not required", "5", nil},
		"TPM 1.2":         {all, "1", "User not required", "22", nil},
		"blocked":         {"5 2: Blocked for OS by BIOS\n", "2", "", "0\n", ErrPresence},
		"not implemented": {"22 4: User not required\n", "2", "", "0\n", ErrPresence},
	} {
		e := &emulated{t: t, sys: t.TempDir()}
		e.file("tpm_version_major", c.major)
		e.ready(c.operations)
		if err := os.Truncate(filepath.Join(e.sys, "ppi/request"), int64(len(c.request))); err != nil {
			t.Fatal(err)
		}
		says, err := e.tpm().Request()
		b, rerr := os.ReadFile(filepath.Join(e.sys, "ppi/request"))
		if says != c.says || !errors.Is(err, c.want) || rerr != nil || string(b) != c.request {
			t.Errorf("%s: %q, %v; it holds %q", name, says, err, b)
		}
	}
	e := &emulated{t: t, sys: t.TempDir()}
	if _, err := e.tpm().Request(); !errors.Is(err, ErrPresence) {
		t.Errorf("no interface: %v", err)
	}
	e.ready(all)
	if err := os.Remove(filepath.Join(e.sys, "ppi/request")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", filepath.Join(e.sys, "ppi/request")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.tpm().Request(); !errors.Is(err, ErrPresence) {
		t.Errorf("one that is forgotten: %v", err)
	}
}

// TestPresence: a clear that the firmware does looks as one that was sent.
func TestPresence(t *testing.T) {
	e := start(t)
	e.password(rhLockout)
	before := e.look()
	const platform = 0x4000000c
	e.send(ccClear, nil, platform)
	if f := e.look(); !before.Lockout || f.Lockout || len(f.Key) == 0 || bytes.Equal(f.Key, before.Key) {
		t.Errorf("%+v, then %+v", before, f)
	}
}

// TestFind: no directory, no TPM.
func TestFind(t *testing.T) {
	sys := t.TempDir()
	if f, err := Find(sys, "/dev"); f != nil || err != nil {
		t.Errorf("%v, %v", f, err)
	}
	if err := os.MkdirAll(filepath.Join(sys, "class/tpm/tpm0"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := Find(sys, sys)
	if f == nil || err != nil {
		t.Fatalf("%v, %v", f, err)
	}
	if _, err := f.Look(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a device that is not there: %v", err)
	}
}

// FuzzAnswer: whatever a TPM answers, it is facts or an error.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0})
	f.Add(append(code(0), make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, answer []byte) {
		e := &emulated{t: t, sys: t.TempDir(), hear: func(uint32) []byte { return answer }}
		if len(answer) == 0 {
			return
		}
		tpm := New(e.sys, func() (io.ReadWriteCloser, error) { return &closed{port{e: e}}, nil })
		if f, err := tpm.Look(); err == nil && len(f.Persistent) > mostHandles {
			t.Error(strconv.Itoa(len(f.Persistent)))
		}
	})
}

// closed is a port that ends behind an answer.
type closed struct{ port }

func (c *closed) Read(b []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	return c.port.Read(b)
}

func TestVersion(t *testing.T) {
	for _, tt := range []struct {
		sys  fstest.MapFS
		want string
	}{
		{fstest.MapFS{}, ""},
		{fstest.MapFS{"class/tpm/tpm0/uevent": {}}, "unknown"},
		{fstest.MapFS{"class/tpm/tpm0/tpm_version_major": {Data: []byte("1\n")}}, "1.2"},
		{fstest.MapFS{"class/tpm/tpm0/tpm_version_major": {Data: []byte("2\n")}}, "2.0"},
		{fstest.MapFS{"class/tpm/tpm0/tpm_version_major": {Data: []byte("3\n")}}, "unknown"},
	} {
		if got := Version(tt.sys); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.sys, got, tt.want)
		}
	}
}
