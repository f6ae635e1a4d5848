//go:build soak

package lab_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"gprovision/lab"
)

// TestSoakNoHalfSystem records what a restore writes to the main disk, cuts the power at each border of two steps and at random moments,
// and judges what is left, on a loop device, with the code by which init does. What was not flushed is lost, or a random part of it. A
// main system that has its mark is whole: its filesystem has no error that e2fsck would ask about, and its files and all that lies
// before it on the disk are what the finished restore left. All else is restored again: TestSoakCutsConverge.
func TestSoakNoHalfSystem(t *testing.T) {
	t.Parallel()
	dir := workDir(t, 16<<30)
	_, logs, moments := recordRestore(t, needLife(t), dir, count(t, 50))
	const main = 1 // after the recovery disk
	st, err := os.Stat(logs[main])
	if err != nil {
		t.Fatal(err)
	}
	all := st.Size()

	d := halfDisk{path: filepath.Join(dir, "main.raw")}
	begin := func() { // the disk is blank before
		t.Helper()
		run(t, "rm", "-f", d.path)
		run(t, "truncate", "-s", fmt.Sprint(lab.MainSize), d.path)
	}
	begin()
	if err := lab.Replay(d.path, logs[main], all, func(lab.WriteEntry) bool { return true }); err != nil {
		t.Fatal(err)
	}
	d.start = mainSystem(t, d.path).Start
	want := d.judge(t)
	if !want.marked || len(want.files) < 10 {
		t.Fatalf("the restored system has its mark: %t, and %d files", want.marked, len(want.files))
	}
	var marked int
	for i, m := range append(moments, moment{"at the end", []int64{0, all}}) {
		random := rand.New(rand.NewPCG(3, uint64(i)))
		for name, keep := range map[string]func(lab.WriteEntry) bool{
			"nothing of": func(lab.WriteEntry) bool { return false },
			"a part of":  func(lab.WriteEntry) bool { return random.IntN(2) == 0 },
		} {
			begin()
			if err := lab.Replay(d.path, logs[main], m.lengths[main], keep); err != nil {
				t.Fatal(err)
			}
			got := d.judge(t)
			if !got.marked {
				continue
			}
			marked++
			if diff := got.differs(want); diff != "" {
				t.Errorf("%s, with %s what was not flushed: the system has its mark, but %s", m.name, name, diff)
			}
		}
	}
	if marked == 0 || marked == 2*(len(moments)+1) {
		t.Errorf("%d of %d cuts left a system with a mark", marked, 2*(len(moments)+1))
	}
	t.Logf("%d cuts, %d of them left a system with a mark", 2*(len(moments)+1), marked)
}
