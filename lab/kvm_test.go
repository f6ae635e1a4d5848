package lab

import "testing"

func TestVirtualizes(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"Intel", "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\n", true},
		{"AMD", "flags\t\t: fpu svm\nprocessor\t: 1\nflags\t\t: fpu svm\n", true},
		{"a guest without", "model name\t: vmx\nflags\t\t: fpu hypervisor svm_lock\nvmx flags\t: vnmi\n", false},
		{"nothing", "", false},
	} {
		if got := virtualizes(c.text); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
