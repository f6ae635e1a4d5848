package pid1

import (
	"context"
	"errors"
	"time"

	"gprovision/hw/bmc"
	"gprovision/unit/machine"
)

// lightAgain is how often the identify light is lit anew: before it goes out by itself, which it does when the unit loses its power.
const lightAgain = bmc.LongestLight - 15*time.Second

// lightUp lights the identify light of the machine while a person is wanted. The function that it returns puts it out.
func lightUp(ctx context.Context, u *unit) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	u.background("identify light", func() {
		defer close(ended)
		for {
			err := machine.Light(ctx, u.m, bmc.LongestLight)
			if err != nil {
				if !errors.Is(err, bmc.ErrNone) {
					u.log.Warn("identify light", "err", err)
				}
				return
			}
			select {
			case <-time.After(lightAgain):
			case <-ctx.Done():
				if err := machine.Light(context.WithoutCancel(ctx), u.m, 0); err != nil {
					u.log.Warn("identify light stays on", "err", err)
				}
				return
			}
		}
	})
	return func() {
		cancel()
		<-ended
	}
}
