package boot

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// LackError says all that a root filesystem lacks, where that is more than one thing: a person installs packages once.
type LackError struct {
	// All are a *KernelError and *MissingError values.
	All []error
}

func (e *LackError) Error() string {
	var lines []string
	for _, err := range e.All {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "; ")
}

// Unwrap makes errors.Is and errors.As look at each.
func (e *LackError) Unwrap() []error { return e.All }

// Hint says what to do next.
func (e *LackError) Hint() string {
	var install, more []string
	for _, err := range e.All {
		var missing *MissingError
		var kernel *KernelError
		switch {
		case errors.As(err, &missing) && missing.In == "" && missing.Package != "":
			install = append(install, missing.Package)
		case errors.As(err, &missing):
			more = append(more, missing.Hint())
		case errors.As(err, &kernel) && len(kernel.Have) == 0:
			install = append(install, cmp.Or(kernel.Install, "a plain kernel"))
		case errors.As(err, &kernel):
			more = append(more, kernel.Hint())
		}
	}
	if len(install) > 0 {
		slices.Sort(install)
		more = append([]string{"install " + strings.Join(slices.Compact(install), ", ") + " into the root filesystem"}, more...)
	}
	return strings.Join(slices.Compact(more), "; ")
}

// Lacks returns what err says that a root filesystem lacks, nil if it says something else.
func Lacks(err error) []error {
	var all *LackError
	var missing *MissingError
	var kernel *KernelError
	switch {
	case errors.As(err, &all):
		return all.All
	case errors.As(err, &missing):
		return []error{missing}
	case errors.As(err, &kernel):
		return []error{kernel}
	}
	return nil
}

// lacks returns what the root filesystem and the tools lack of all that a unified kernel image needs; kernel is what was said about their
// kernels, nil if one was found.
func (b *builder) lacks(kernel error) error {
	var all []error
	note := func(_ string, err error) {
		if err != nil {
			all = append(all, err)
		}
	}
	note("", kernel)
	note(b.root.find(stubPackage, stubPath))
	note(b.root.find("base-files", osReleasePath))
	for _, t := range b.programs() {
		note(b.findTool(t.debianPackage, toolPlaces(t.name)...))
	}
	_, conf, err := b.findConf()
	note(conf, err)
	if !b.o.NoBIOS {
		note(b.root.find(grubPackage, grubDir+"/boot.img"))
		note(b.root.find("grub-common", grubMkimage))
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return &LackError{all}
}
