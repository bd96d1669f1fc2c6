/* The Lorenz system by an adaptive Tsit5 loop, with the step-size control of rootflow.flows.control.

   Coefficients: Ch. Tsitouras, "Runge-Kutta pairs of order 5(4) satisfying only the first column
   simplifying assumption", Computers & Mathematics with Applications 62 (2011), Table 1. */

#include <math.h>

enum { N = 3, STAGES = 7 };

static const double A[STAGES][STAGES - 1] = {
    {0},
    {0.161},
    {-0.008480655492356989, 0.335480655492357},
    {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
    {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
    {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
     -0.028269050394068383},
    {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
     2.324710524099774},
};

static const double E[STAGES] = {
    -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629,
    0.5823571654525552, -0.45808210592918697, 1.0 / 66.0,
};

static void lorenz(const double *y, const double *p, double *dy) {
    dy[0] = p[0] * (y[1] - y[0]);
    dy[1] = y[0] * (p[1] - y[2]) - y[1];
    dy[2] = y[0] * y[1] - p[2] * y[2];
}

static double rms(const double *x, const double *units) {
    double sum = 0.0;
    for (int i = 0; i < N; i++) sum += (x[i] / units[i]) * (x[i] / units[i]);
    return sqrt(sum / N);
}

/* The first step: Hairer, Norsett & Wanner, Solving ODEs I, Section II.4. */
static double first_step(const double *y, const double *slope, const double *p, double span,
                         double rtol, double atol) {
    double units[N], moved[N], there[N];
    for (int i = 0; i < N; i++) units[i] = atol + rtol * fabs(y[i]);
    double size = rms(y, units), speed = rms(slope, units);
    double guess = size < 1e-5 || speed < 1e-5 ? 1e-6 : 0.01 * size / speed;
    guess = fmin(guess, span);
    for (int i = 0; i < N; i++) there[i] = y[i] + guess * slope[i];
    lorenz(there, p, moved);
    for (int i = 0; i < N; i++) moved[i] -= slope[i];
    double largest = fmax(speed, rms(moved, units) / guess);
    double refined = largest <= 1e-15 ? fmax(1e-6, guess * 1e-3) : pow(0.01 / largest, 0.2);
    return fmin(fmin(100 * guess, refined), span);
}

/* Integrates from t = 0 to t1, and returns the number of steps tried; -1: more than max_steps. */
int solve(const double *y0, const double *p, double t1, double rtol, double atol, int max_steps,
          double *y1) {
    double y[N], k[STAGES][N], z[N], error[N], units[N];
    for (int i = 0; i < N; i++) y[i] = y0[i];
    lorenz(y, p, k[0]);
    double t = 0.0, previous = 0.0, h = first_step(y, k[0], p, t1, rtol, atol);
    int steps = 0;
    while (t < t1) {
        if (steps++ == max_steps) return -1;
        int last = h * (1 + 1e-6) >= t1 - t;
        if (last) h = t1 - t;
        for (int s = 1; s < STAGES; s++) {
            for (int i = 0; i < N; i++) {
                double sum = 0.0;
                for (int j = 0; j < s; j++) sum += A[s][j] * k[j][i];
                z[i] = y[i] + h * sum;
            }
            lorenz(z, p, k[s]);
        }
        for (int i = 0; i < N; i++) {
            double sum = 0.0;
            for (int j = 0; j < STAGES; j++) sum += E[j] * k[j][i];
            error[i] = h * sum;
            units[i] = atol + rtol * fmax(fabs(y[i]), fabs(z[i]));
        }
        double scaled = log(fmax(rms(error, units), 1e-10));
        int keep = scaled <= 0.0;
        double change = log(0.9) - 0.2 * scaled + 0.06 * previous;
        change = fmin(fmax(change, log(0.2)), keep ? log(10.0) : 0.0);
        if (keep) {
            t = last ? t1 : t + h;
            previous = scaled;
            for (int i = 0; i < N; i++) y[i] = z[i], k[0][i] = k[STAGES - 1][i];
        }
        h *= exp(change);
    }
    for (int i = 0; i < N; i++) y1[i] = y[i];
    return steps;
}

/* One after the other; the largest number of steps. */
int solve_each(int members, const double *y0, const double *p, double t1, double rtol, double atol,
               int max_steps, double *y1) {
    int most = 0;
    for (int m = 0; m < members; m++) {
        int steps = solve(y0 + N * m, p, t1, rtol, atol, max_steps, y1 + N * m);
        if (steps < 0) return -1;
        if (steps > most) most = steps;
    }
    return most;
}
