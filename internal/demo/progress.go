// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"strings"
	"time"
)

// phaseNames is how phases are called in text.
var phaseNames = map[string]string{"without": "without policy", "with": "with policy"}

const (
	redrawEvery = 200 * time.Millisecond // smooth to the eye, cheap to draw
	lineEvery   = 5 * time.Second        // a dozen lines a phase: readable in a log
	barWidth    = 30
)

// watch prints the progress of a phase until the returned function is called, which waits for it to end.
func (c *collector) watch() (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	every := lineEvery
	if c.r.cfg.Interactive {
		every = redrawEvery
	}
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				c.show()
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
		c.show()
		if c.r.cfg.Interactive {
			c.r.printf("\n")
		}
	}
}

// show prints where the phase stands.
func (c *collector) show() {
	n := c.done()
	status := fmt.Sprintf("%3d/%d  in flight %2d  %5.0f s of the story",
		n, c.planned, c.r.exp.model.gpu.running(), c.r.clock().story(time.Since(c.begin)))
	if !c.r.cfg.Interactive {
		c.r.printf("%-14s  %s\n", phaseNames[c.phase], status)
		return
	}
	filled := barWidth * n / max(c.planned, 1)
	bar := strings.Repeat("█", filled) + strings.Repeat("░", barWidth-filled)
	c.r.printf("\r\x1b[K%-14s  %s  %s", phaseNames[c.phase], bar, status)
}
