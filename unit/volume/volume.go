// Package volume is the recovery volume as a handle. Its owner reads with View and writes with Change, and never asks
// whether the volume is mounted. It is mounted only inside those two, and from Hold to Drop.
//
// Package state knows what lies on the volume. A job that makes a new recovery volume mounts it itself.
package volume

import (
	"errors"

	"gprovision/hw/host"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// Handle is the recovery volume on a partition. Only one goroutine at a time may use it.
type Handle struct {
	m    *machine.Machine
	part string
	held bool
}

// At returns a handle for the volume on a partition, given its device node. It reads nothing.
func At(m *machine.Machine, part string) *Handle { return &Handle{m: m, part: part} }

// View mounts the volume while do runs, at least for reading. It returns the errors of do and of unmounting.
func (h *Handle) View(do func(*state.Volume) error) error { return h.with(true, do) }

// Change mounts the volume for writing while do runs. Once it returns, everything do wrote is on the medium.
func (h *Handle) Change(do func(*state.Volume) error) error { return h.with(false, do) }

func (h *Handle) with(readOnly bool, do func(*state.Volume) error) error {
	if h.held {
		return do(h.open())
	}
	if err := h.mount(readOnly); err != nil {
		return err
	}
	return errors.Join(do(h.open()), h.m.Unmount(h.m.Places.Recovery))
}

// Hold mounts the volume for writing until Drop. A job that keeps its log there calls it. If the volume is already
// held, it stays so.
func (h *Handle) Hold() (*state.Volume, error) {
	if !h.held {
		if err := h.mount(false); err != nil {
			return nil, err
		}
		h.held = true
	}
	return h.open(), nil
}

// Drop ends a hold. It does not unmount: the caller has already unmounted everything (machine.Doors.UnmountAll).
func (h *Handle) Drop() { h.held = false }

func (h *Handle) open() *state.Volume { return state.Open(h.m.Places.Recovery) }

func (h *Handle) mount(readOnly bool) error {
	return h.m.Mount(h.part, h.m.Places.Recovery, "ext4", host.MountOptions{ReadOnly: readOnly, NoExec: true, NoSUID: true, NoDev: true})
}
