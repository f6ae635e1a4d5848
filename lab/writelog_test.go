package lab_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gprovision/lab"
	"gprovision/model/edit"
)

// logBytes builds a write log. A write of n sectors holds n sectors of the given byte.
type logBytes struct{ bytes.Buffer }

func newLog() *logBytes {
	l := &logBytes{}
	l.sector(0x6a736677736872, 1, 0, 512)
	return l
}

func (l *logBytes) sector(words ...uint64) {
	b := make([]byte, 512)
	for i, w := range words {
		binary.LittleEndian.PutUint64(b[8*i:], w)
	}
	l.Write(b)
}

func (l *logBytes) put(sector, n, flags uint64, fill byte) *logBytes {
	l.sector(sector, n, flags, 0)
	if flags&4 == 0 {
		l.Write(bytes.Repeat([]byte{fill}, int(n)*512))
	}
	return l
}

const logDisk = 8 * 512

func readLog(b []byte) (*lab.WriteLog, error) {
	return lab.ReadWriteLog(bytes.NewReader(b), int64(len(b)), logDisk)
}

// TestWriteLog cuts the power behind each entry of a log and looks at what the disk has then.
func TestWriteLog(t *testing.T) {
	b := newLog().put(0, 8, 0, 'a').put(0, 0, 1, 0).put(1, 2, 0, 'b').put(3, 1, 2, 'c').put(4, 2, 4, 0).put(0, 0, 1, 0).put(7, 1, 0, 'd').Bytes()
	l, err := readLog(b)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"--------", "--------", "aaaaaaaa", "aaaaaaaa", "aaacaaaa", "aaacaaaa", "abbc--aa", "abbc--aa"} {
		path := filepath.Join(t.TempDir(), "disk")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(logDisk); err != nil {
			t.Fatal(err)
		}
		safe := l.Flushed(n)
		if err := l.Apply(f, 0, safe, nil); err != nil {
			t.Fatal(err)
		}
		if err := l.Apply(f, safe, n, func(e lab.WriteEntry) bool { return e.FUA }); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var s string
		for i := 0; i < len(got); i += 512 {
			s += string(max(got[i], '-'))
		}
		if s != want {
			t.Errorf("cut behind %d entries: %s, want %s", n, s, want)
		}
	}
	if l.Within(int64(len(b))) != 7 || l.Within(int64(len(b))-1) != 6 || l.Within(511) != 0 {
		t.Errorf("entries within the log, and one byte less: %d, %d", l.Within(int64(len(b))), l.Within(int64(len(b))-1))
	}
	if cut, err := readLog(b[:len(b)-1]); err != nil || len(cut.Entries) != 6 {
		t.Errorf("a log that ends within an entry: %v, %v", cut, err)
	}
}

func TestWriteLogRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":           nil,
		"no magic":        make([]byte, 4096),
		"behind the disk": newLog().put(7, 2, 4, 0).Bytes(),
		"far away":        newLog().put(1<<63, 1<<63, 4, 0).Bytes(),
		"unknown flag":    newLog().put(0, 1, 64, 0).Bytes(),
	} {
		if _, err := readLog(b); !errors.Is(err, lab.ErrWriteLog) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzWriteLog(f *testing.F) {
	good := newLog().put(0, 8, 0, 'a').put(0, 0, 1, 0).put(4, 2, 4, 0).Bytes()
	for _, s := range edit.Scripts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		b := edit.Apply(good, script)
		l, err := readLog(b)
		if err != nil {
			return
		}
		for i, e := range l.Entries {
			if e.Offset < 0 || e.Size < 0 || e.Offset+e.Size > logDisk || e.End > int64(len(b)) || l.Within(e.End) != i+1 {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
	})
}
