"""The fully connected neural network, written by hand: the main names, in reading order.

A module is loaded when one of its names is first used.
"""
__version__ = "0.1.0"

import lazy_loader

NAMES = {
    # I. By hand
    'data': ['Data', 'get_data', 'normalize', 'show_digits', 'show_weights'],
    'init': ['lecun_normal', 'xavier_normal', 'kaiming_normal'],
    'forward': ['linear', 'relu', 'mse'],
    'backward': ['linear_grad', 'relu_grad', 'mse_grad', 'numeric_grad', 'check_grads'],
    'layers': ['Module', 'Linear', 'ReLU', 'Sigmoid', 'Tanh', 'MSE', 'Sequential',
               'check_layer'],
    'nn_module': ['MLP'],
    # II. Learning
    'classify': ['softmax', 'cross_entropy', 'CrossEntropy', 'OneHotMSE', 'accuracy',
                 'confusion', 'show_confusion'],
    'optim': ['SGD', 'Adam', 'AdamW', 'decay_groups', 'one_cycle'],
    'learner': ['Callback', 'Learner', 'Progress', 'Schedule'],
    'diagnose': ['lr_find', 'ActivationStats', 'ClipGradients'],
    'checkpoint': ['Checkpoint', 'HistoryFile', 'load_weights'],
    # III. Better
    'regularize': ['Dropout', 'MaxNorm', 'EMA', 'EarlyStopping'],
    'augment': ['Distort', 'Noise'],
    'deep': ['Normalize', 'BatchNorm', 'LayerNorm', 'GELU', 'Residual'],
    'interpret': ['pca', 'input_grad'],
    'trust': ['calibration_error', 'fit_temperature', 'fgsm', 'Adversarial'],
    'images': ['digit_from_image', 'open_as_is', 'picture_fault', 'read_digit'],
    # IV. Faster and farther
    'fuse': ['Fuse'],
    'benchmark': ['bench'],
    'distributed': ['parallel'],
    'accelerate': ['Precision', 'BFloat16', 'BFloat16Linear', 'CudaGraph'],
    # V. In use
    'config': ['Config', 'build_model', 'build_learner', 'load_model'],
    'recipes': ['run_recipe', 'test_error'],
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, NAMES.keys(), NAMES)
__all__ = sum(NAMES.values(), [])
