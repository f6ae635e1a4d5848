//go:build soak

package boot

import (
	"bytes"
	"os"
	"testing"
)

// TestSoakKernelFromDebian compiles the curated kernel from Debian's source package. It takes as long as it takes.
func TestSoakKernelFromDebian(t *testing.T) {
	o := debianSource(t)
	o.Progress = func(p KernelProgress) {
		if p.Steps%500 == 0 {
			t.Logf("%s %d %s", p.Phase, p.Steps, p.Detail)
		}
	}
	r, err := BuildKernel(t.Context(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(bytes.NewReader(first), int64(len(first)))
	if err != nil || *in.Build != 300 || in.Release != r.Kernel || in.Initrd == nil || in.Info == nil || in.Info.Kernel != r.Kernel {
		t.Fatalf("inspection is %+v, %v", in, err)
	}
	t.Logf("%s: %d bytes", r.Kernel, r.Size)
	o.BuildNumber = 301
	if _, err := BuildKernel(t.Context(), nil, o); err != nil {
		t.Fatal(err)
	}
	o.BuildNumber = 300
	if _, err := BuildKernel(t.Context(), nil, o); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(o.Out); err != nil || !bytes.Equal(first, again) {
		t.Errorf("the third kernel differs from the first, %v", err)
	}
}
