package image

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gprovision/forge/boot"
)

// madeBoot is a boot artifact that was made for an image.
type madeBoot struct {
	report *boot.Report
	dir    string
}

func (m madeBoot) remove() {
	if m.dir != "" {
		os.RemoveAll(m.dir)
	}
}

// makeBoot makes the boot artifact from the root filesystem's own kernel, if o.Boot asks for it, and adds it to o.Add. It takes
// the place of one that is there.
func makeBoot(ctx context.Context, log *slog.Logger, in *input, o *Options, say func(Progress)) (_ madeBoot, err error) {
	if o.Boot == nil {
		return madeBoot{}, nil
	}
	if slices.ContainsFunc(o.Add, func(f File) bool { return filepath.Clean("/"+f.Dest) == "/"+bootFile }) {
		return madeBoot{}, fmt.Errorf("make boot artifact: /%s is added as a file already", bootFile)
	}
	say(Progress{"make boot artifact", 0, 0})
	root, err := in.settle(ctx)
	if err != nil {
		return madeBoot{}, fmt.Errorf("make boot artifact: %w", err)
	}
	dir, err := os.MkdirTemp("", "gprov-boot-")
	if err != nil {
		return madeBoot{}, fmt.Errorf("make boot artifact: %w", err)
	}
	m := madeBoot{dir: dir}
	b := *o.Boot
	b.RootFS, b.Out, b.Time = root, filepath.Join(dir, "norm_boot"), o.Time
	rep, err := boot.Build(ctx, log, b)
	if err != nil {
		m.remove()
		return madeBoot{}, err
	}
	m.report = &rep
	o.Add = append(slices.Clone(o.Add), File{Local: b.Out, Dest: "/" + bootFile, Mode: 0o644})
	return m, nil
}

// besides adds to what a root filesystem lacks for its boot artifact what else is wrong with it, so that all is told at once. Another
// error stays as it is.
func (t *tree) besides(err error, o Options) error {
	lacks := boot.Lacks(err)
	if _, _, bad := t.addFiles(o); bad != nil {
		return err
	}
	others := slices.DeleteFunc(t.problems(), func(p Problem) bool { return strings.HasPrefix(bootFile+"/", p.Path+"/") })
	if len(lacks) == 0 || len(others) == 0 {
		return err
	}
	var problems []Problem
	for _, e := range lacks {
		p := Problem{Path: bootFile, Text: "it cannot be made: " + e.Error()}
		if h, ok := e.(interface{ Hint() string }); ok {
			p.Hint = h.Hint()
		}
		problems = append(problems, p)
	}
	return &ContractError{append(problems, others...)}
}
