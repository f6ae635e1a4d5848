package job

import (
	"context"

	"gprovision/model/fault"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
)

// MountMedium mounts a medium read-only. The caller calls done when it needs nothing of it any more.
func (e Env) MountMedium(m medium.Medium) (dir string, done func(), err error) {
	dir, unmount, err := medium.Mount(e.Survey.Eyes, m)
	return dir, func() {
		if err := unmount(); err != nil {
			e.Machine.Log.Warn("medium cannot be unmounted", "err", err)
		}
	}, err
}

// ProveOnMedium shows that an image on a medium is good.
func (e Env) ProveOnMedium(ctx context.Context, im image.Image) error {
	m := e.Machine
	m.Panel.Show(panel.View{Job: string(decide.Rescue), Step: "Checking image"})
	meter, stop := m.Track(ctx, im.Size)
	defer stop()
	return image.Prove(ctx, im, m.Policy, m.Keys, meter.Set)
}

// RefuseMedium tells the person why a medium is not used, and lets them read it.
func (e Env) RefuseMedium(ctx context.Context, err error) {
	e.ShowFailure("emergency medium refused", &fault.Occurrence{Fault: fault.MediumUnusable, Cause: err})
	e.Machine.Panel.Pause(ctx, ReadingTime)
}
